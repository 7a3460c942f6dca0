#include "vmm/trace/exit_text.h"

#include <fmt/format.h>

namespace vmm {

std::string exit_text(const ExitRecord& record) {
  std::string text = fmt::format("#{} {}", record.number, record.name());
  if (record.is_access()) {
    text += fmt::format(" {} {:#x} width {} value {:#x}", record.is_write ? "write" : "read",
                        record.address, record.width, record.value);
  } else if (record.name() == "emulation-failure") {
    std::string bytes;
    for (unsigned i = 0; i < 8; ++i) bytes += fmt::format(" {:02x}", record.value >> 8 * i & 0xff);
    text += " at bytes" + bytes;
  } else if (record.name() == "debug") {
    text += fmt::format(" at {:#x} dr6 {:#x}", record.address, record.value);
  } else if (record.value != 0) {
    text += fmt::format(" {:#x}", record.value);
  }
  if (record.rip != 0) text += fmt::format(" rip {:#x}", record.rip);
  return text;
}

}  // namespace vmm

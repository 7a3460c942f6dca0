#include "vmm/guest_linux/kernel_memory.h"

#include <fmt/format.h>

namespace vmm::guest_linux {

Result<void> KernelMemory::read(std::uint64_t address, std::span<std::byte> bytes) const {
  for (const PagingContext& tables : tables_) {
    if (read_virtual(memory_, tables, Gva(address), bytes)) return {};
  }
  return fail(ErrorCode::kOutOfRange, "No CPU's page tables map RAM at {:#x}", address);
}

Result<std::uint64_t> KernelMemory::integer(std::uint64_t address, std::uint64_t size) const {
  switch (size) {
    case 1:
      return read<std::uint8_t>(address);
    case 2:
      return read<std::uint16_t>(address);
    case 4:
      return read<std::uint32_t>(address);
    case 8:
      return read<std::uint64_t>(address);
    default:
      return fail(ErrorCode::kBadState, "An integer of {} bytes at {:#x}", size, address);
  }
}

Result<std::string> KernelMemory::text(std::uint64_t address, std::size_t size) const {
  std::string raw(size, '\0');
  VMM_TRY(read(address, std::as_writable_bytes(std::span(raw))));
  return printable(std::string_view(raw).substr(0, raw.find('\0')));
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace vmm::guest_linux

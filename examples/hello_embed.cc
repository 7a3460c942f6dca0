// The smallest use of the library: a guest of a few bytes, run to its end, and looked at
// afterwards.
//
//   examples/hello_embed
#include <cstdio>
#include <string>
#include <vector>

#include "devices/capture_sink.h"
#include "vmm/vm.h"

namespace {

// 64-bit guest code, as a test would get it from an assembler.
std::vector<std::byte> guest_code() {
  constexpr unsigned char kCode[] = {
      0x66, 0xba, 0xf8, 0x03,              // mov $0x3f8, %dx        COM1
      0xb0, 'h',  0xee,                    // mov $'h', %al; out %al, (%dx)
      0xb0, 'i',  0xee,                    // mov $'i', %al; out %al, (%dx)
      0xc7, 0x04, 0x25, 0x00, 0x20, 0x00,  // movl $42, 0x2000
      0x00, 0x2a, 0x00, 0x00, 0x00,        //
      0xfa, 0xf4,                          // cli; hlt
  };
  std::vector<std::byte> code;
  for (const unsigned char byte : kCode) code.push_back(static_cast<std::byte>(byte));
  return code;
}

}  // namespace

int main() {
  vmm::CaptureSink console;
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;  // this guest takes no interrupts
  config.boot = vmm::FlatBoot{.image = guest_code(), .address = vmm::Gpa(0x1000)};
  config.serial.output = &console;

  const auto vm = vmm::Vm::create(std::move(config));
  if (!vm) {
    std::fprintf(stderr, "hello_embed: %s\n", vm.error().message().c_str());
    // Without KVM there is nothing to show: Meson's exit status for a test that skips itself.
    return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  const auto stop = (*vm)->run({.deadline = std::chrono::seconds(30)});
  if (!stop) {
    std::fprintf(stderr, "hello_embed: %s\n", stop.error().message().c_str());
    return 1;
  }
  const auto answer = (*vm)->memory().read<std::uint32_t>(vmm::Gpa(0x2000));
  std::printf("the guest said '%s', left %u in its memory, and ended: %s\n", console.text().c_str(),
              answer.value_or(0), std::string(vmm::to_string(stop->reason)).c_str());
  return console.text() == "hi" && answer.value_or(0) == 42 ? 0 : 1;
}

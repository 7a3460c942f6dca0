// A device of the program's own: a guest asks it for numbers, and it answers with an interrupt
// line that the guest can see.
//
//   examples/custom_device
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/function_device.h"
#include "vmm/vm.h"

namespace {

// Asks the device at port 0x500 to square 12, looks whether its interrupt line is up, and hands the
// answer to the debug-exit port.
std::vector<std::byte> guest_code() {
  constexpr unsigned char kCode[] = {
      0x66, 0xba, 0x00, 0x05,  // mov $0x500, %dx
      0xb0, 0x0c,              // mov $12, %al
      0xee,                    // out %al, (%dx)
      0xb0, 0x0a, 0xe6, 0x20,  // mov $0x0a, %al; out %al, $0x20    PIC: show what is requested
      0xe4, 0x20,              // in $0x20, %al
      0xa8, 0x20,              // test $0x20, %al                   line 5
      0x74, 0xfe,              // jz .                              not up: never ends
      0xed,                    // in (%dx), %eax
      0xe7, 0xf4,              // out %eax, $0xf4                   debug exit
      0xeb, 0xfe,              // jmp .
  };
  const auto bytes = std::as_bytes(std::span(kCode));
  return {bytes.begin(), bytes.end()};
}

// What is written to it comes back squared; its line is up as long as there is an answer.
vmm::EmbedderDevice squarer() {
  return {
      .ports = {{.base = 0x500, .size = 4}}, .irqs = {5}, .make = [](const vmm::DeviceHost& host) {
        auto answer = std::make_shared<std::uint64_t>(0);
        vmm::IrqLine line = host.irqs[0];
        vmm::FunctionDevice::Handlers handlers;
        handlers.write = [=](const vmm::IoAccess&, std::size_t, std::uint64_t value) mutable {
          *answer = value * value;
          line.set_level(true);
        };
        handlers.read = [=](const vmm::IoAccess&, std::size_t) mutable {
          line.set_level(false);
          return *answer;
        };
        return std::make_unique<vmm::FunctionDevice>("squarer", handlers);
      }};
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.boot = vmm::FlatBoot{.image = guest_code(), .address = vmm::Gpa(0x1000)};
  config.devices.push_back(squarer());

  const auto vm = vmm::Vm::create(std::move(config));
  if (!vm) {
    std::fprintf(stderr, "custom_device: %s\n", vm.error().message().c_str());
    // Without KVM there is nothing to show: Meson's exit status for a test that skips itself.
    return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  const auto stop = (*vm)->run({.deadline = std::chrono::seconds(30)});
  if (!stop) {
    std::fprintf(stderr, "custom_device: %s\n", stop.error().message().c_str());
    return 1;
  }
  std::printf("12 squared is %u, says the device (%s)\n", stop->value,
              std::string(vmm::to_string(stop->reason)).c_str());
  return stop->reason == vmm::StopReason::kDebugExit && stop->value == 144 ? 0 : 1;
}

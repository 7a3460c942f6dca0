// A program outside of the project, as a user of the library writes one: it has the installed
// headers and what pkg-config tells, and nothing else. Exit status 0: all was as expected; 77: this
// host has no KVM.
#include <devices/function_device.h>
#include <vmm/version.h>
#include <vmm/vm.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>

namespace {

std::vector<std::byte> guest_code() {
  constexpr unsigned char kCode[] = {
      0x66, 0xba, 0xf8, 0x03,                    // mov $0x3f8, %dx        COM1
      0xb0, 'h',  0xee, 0xb0, 'i',  0xee,        // out 'h', 'i'
      0x66, 0xba, 0x00, 0x05,                    // mov $0x500, %dx        the program's own device
      0xed,                                      // in (%dx), %eax
      0x89, 0x04, 0x25, 0x00, 0x20, 0x00, 0x00,  // mov %eax, 0x2000
      0xfa, 0xf4,                                // cli; hlt
  };
  const auto bytes = std::as_bytes(std::span(kCode));
  return {bytes.begin(), bytes.end()};
}

int failures = 0;

void expect(bool holds, std::string_view what) {
  if (holds) return;
  std::printf("not so: %s\n", std::string(what).c_str());
  ++failures;
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = guest_code(), .address = vmm::Gpa(0x1000)};
  config.devices.push_back(
      {.ports = {{.base = 0x500, .size = 4}}, .make = [](const vmm::DeviceHost&) {
         return std::make_unique<vmm::FunctionDevice>(
             "answer",
             vmm::FunctionDevice::Handlers{
                 .read = [](const vmm::IoAccess&, std::size_t) -> std::uint64_t { return 42; }});
       }});
  const auto created = vmm::Vm::create(std::move(config));
  if (!created) {
    std::printf("%s\n", created.error().message().c_str());
    return created.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  vmm::Vm& vm = **created;
  constexpr vmm::VcpuId kCpu{0};
  constexpr std::chrono::seconds kEnough{60};

  const auto said = vm.run_until({vmm::UntilConsole{"hi"}}, kEnough);
  expect(said && said->met == 0u, "the guest says 'hi'");
  expect(vm.memory().read<std::uint32_t>(vmm::Gpa(0x2000)).value_or(1) == 0,
         "and has not gone on then");

  const auto stop = vm.run({.deadline = kEnough});
  expect(stop && stop->reason == vmm::StopReason::kHalted, "it halts");
  const auto registers = vm.registers(kCpu);
  expect(registers && registers->gpr[vmm::x86::kRax] == 42,
         "with the device's answer in a register");
  std::array<std::byte, 4> bytes{};
  expect(vm.read_virtual(kCpu, vmm::Gva(0x2000), bytes) && bytes[0] == std::byte{42},
         "and in memory");

  std::printf("vmm %s: %s\n", vmm::version(), failures == 0 ? "as expected" : "NOT as expected");
  return failures == 0 ? 0 : 1;
}

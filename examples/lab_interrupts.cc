// The laboratory of virtualization: an interrupt waits until the guest wants it, and waiting costs
// no exit. A device of this program raises a line while the guest has masked interrupts; the guest
// looks a thousand times that nothing has come, then executes STI.
//
//   examples/lab_interrupts
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "devices/function_device.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// Port 0x500: bit 0 is the level of IRQ 5. Each "out" to port 0x80 is a place where the program
// looks: RBX and RCX are how often the handler has run, masked and after STI.
VMM_GUEST_CODE(kGuest, R"(
    mov $0x70000, %esp
    # The gate of vector 0x25
    lea .Linterrupts_handler(%rip), %rax
    mov %ax, 0x5250
    movw $0x08, 0x5252
    movw $0x8e00, 0x5254
    shr $16, %rax
    mov %ax, 0x5256
    movl $0, 0x5258
    lidt .Linterrupts_idt(%rip)
    # The interrupt controllers: vectors from 0x20 and 0x28 on, all masked but IRQ 5
    mov $0x11, %al
    out %al, $0x20
    out %al, $0xa0
    mov $0x20, %al
    out %al, $0x21
    mov $0x28, %al
    out %al, $0xa1
    mov $0x04, %al
    out %al, $0x21
    mov $0x02, %al
    out %al, $0xa1
    mov $0x01, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xdf, %al
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1
    # The local APIC lets the controllers' line through (ExtINT on LINT0)
    mov $0xfee00000, %edi
    movl $0x1ff, 0xf0(%rdi)
    movl $0x700, 0x350(%rdi)

    cli
    mov $0x500, %dx
    mov $1, %al
    out %al, %dx
    out %al, $0x80              # 1: the line is high
    mov $1000, %ecx
  .Linterrupts_masked:
    mov 0x2000, %ebx
    dec %ecx
    jnz .Linterrupts_masked
    out %al, $0x80              # 2: nothing has come
    mov $100000, %r8d
    sti
  .Linterrupts_open:
    mov 0x2000, %ecx
    test %ecx, %ecx
    jnz .Linterrupts_came
    dec %r8d
    jnz .Linterrupts_open
  .Linterrupts_came:
    cli
    out %al, $0x80              # 3: it has
    hlt

  .Linterrupts_handler:
    push %rax
    push %rdx
    incl 0x2000
    mov $0x500, %dx
    xor %eax, %eax
    out %al, %dx                # the device is content
    mov $0x20, %al
    out %al, $0x20              # and so is the controller
    pop %rdx
    pop %rax
    iretq
    .balign 8
  .Linterrupts_idt:
    .word 0xfff
    .quad 0x5000
)");

using Exits = std::map<std::string, std::uint64_t>;

std::string difference(const Exits& before, const Exits& after) {
  std::string text;
  for (const auto& [kind, count] : after) {
    const auto then = before.find(kind);
    std::uint64_t more = count - (then == before.end() ? 0 : then->second);
    if (kind == "pio" && more != 0) --more;  // the place where the program looks
    if (more == 0 || kind == "interrupted") continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", more, kind);
  }
  return text.empty() ? "none" : text;
}

vmm::VmConfig machine(vmm::IrqchipMode irqchip) {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = irqchip;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(0x1000)};
  config.devices.push_back(
      {.ports = {{.base = 0x500, .size = 1}}, .irqs = {5}, .make = [](const vmm::DeviceHost& host) {
         return std::make_unique<vmm::FunctionDevice>(
             "button", vmm::FunctionDevice::Handlers{
                           .write = [line = host.irqs[0]](const vmm::IoAccess&, std::size_t,
                                                          std::uint64_t value) mutable {
                             line.set_level((value & 1) != 0);
                           }});
       }});
  return config;
}

// 0: as the textbook says; 77: there is no KVM; 1: not so.
int watch(const char* name, vmm::IrqchipMode irqchip) {
  const auto created = vmm::Vm::create(machine(irqchip));
  if (!created) {
    std::fprintf(stderr, "lab_interrupts: %s\n", created.error().message().c_str());
    return created.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  vmm::Vm& vm = **created;
  const auto next = [&vm]() -> std::optional<vmm::x86::Registers> {
    const auto reached =
        vm.run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, std::chrono::seconds(30));
    if (!reached || !*reached) return std::nullopt;
    const auto registers = vm.registers(vmm::VcpuId{0});
    return registers ? std::optional(*registers) : std::nullopt;
  };
  const bool raised = next().has_value();
  const Exits at_first = vm.stats().exits;
  const auto masked = next();
  const Exits at_second = vm.stats().exits;
  const auto open = next();
  if (!raised || !masked || !open) {
    fmt::print("{}: NOT SO: the guest did not come to its end\n", name);
    return 1;
  }
  fmt::print("{}\n  masked:    the handler ran {} times; exits: {}\n", name,
             masked->gpr[vmm::x86::kRbx], difference(at_first, at_second));
  fmt::print("  after STI: the handler ran {} times; exits: {}\n", open->gpr[vmm::x86::kRcx],
             difference(at_second, vm.stats().exits));
  const bool right = masked->gpr[vmm::x86::kRbx] == 0 && open->gpr[vmm::x86::kRcx] == 1;
  if (!right) fmt::print("NOT SO: once, and after STI, was expected\n");
  return right ? 0 : 1;
}

}  // namespace

int main() {
  const int kernel = watch("interrupt controllers in KVM", vmm::IrqchipMode::kKernel);
  if (kernel != 0) return kernel;
  return watch("interrupt controllers in this process", vmm::IrqchipMode::kUser);
}

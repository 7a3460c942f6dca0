// The hypercalls' part of ExitDispatch.
#include <vector>

#include "vmm/exit_dispatch.h"

namespace vmm {

Result<void> ExitDispatch::on_hypercall(kvm::VcpuFd& cpu, const PioExit& exit,
                                        const HypercallPort& port) {
  // The shared page is the next KVM_RUN's, which is the next line: only it moves RIP behind an OUT.
  const std::vector<std::byte> written(exit.data.begin(), exit.data.end());
  (void)VMM_TRY(cpu.complete_pending());  // of a write nothing more comes
  for (std::uint32_t i = 0; i < exit.count; ++i) {
    const auto item = std::span(written).subspan(std::size_t{i} * exit.width, exit.width);
    const x86::Registers before = VMM_TRY(cpu.registers());
    Hypercall call({.vcpu = id_, .cpu = cpu, .memory = machine_.memory, .stops = machine_.stops},
                   before, exit.port, item);
    port.call(call);
    if (call.registers() == before) continue;
    VMM_TRY(cpu.set_registers(call.registers()));
    if (interpreter_) interpreter_->forget();
  }
  // A step over it has ended in that KVM_RUN, which nobody sees.
  return after_instruction(cpu);
}

}  // namespace vmm

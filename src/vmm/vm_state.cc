// Looking at a guest that stands: registers, memory by virtual address, stacks.
#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "vmm/kvm/lapic_page.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/lapic_access.h"
#include "vmm/linear_memory.h"
#include "vmm/stack_walk.h"
#include "vmm/vm_impl.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/paging_context.h"

namespace vmm {

const GuestMemory& Vm::memory() const { return impl_->machine->memory; }

Result<std::unique_lock<std::mutex>> Vm::Impl::may_look() const {
  // Without the lock then: a run() that begins waits for the pause's end as well.
  if (between || control->paused()) return std::unique_lock<std::mutex>();
  std::unique_lock<std::mutex> lock(run_mutex, std::try_to_lock);
  if (!lock) {
    return fail(ErrorCode::kBadState, "The guest is running: pause it first");
  }
  return lock;
}

namespace {

Result<StackSample> sample_stack(const kvm::VcpuFd& cpu, VcpuId id, const GuestMemory& memory,
                                 std::size_t most_frames) {
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  StackSample sample{.vcpu = id, .user = system.cpl() == 3, .frames = {registers.rip}};
  const auto callers = callers_of(memory, registers, system, most_frames - 1);
  sample.frames.insert(sample.frames.end(), callers.begin(), callers.end());
  return sample;
}

Result<void> check_id(const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id) {
  if (static_cast<std::uint32_t>(id) < vcpus.size()) return {};
  return fail(ErrorCode::kOutOfRange, "There is no vCPU {}: this machine has {}",
              static_cast<std::uint32_t>(id), vcpus.size());
}

// Runs `fn` on the vCPU's thread and hands back what it returned.
template <typename Fn>
auto on_vcpu(const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id, Fn fn)
    -> std::invoke_result_t<Fn, kvm::VcpuFd&> {
  VMM_TRY(check_id(vcpus, id));
  // Shared with the closure, which outlives this call if the vCPU does not answer in time.
  auto answer = std::make_shared<std::optional<std::invoke_result_t<Fn, kvm::VcpuFd&>>>();
  VMM_TRY(vcpus[static_cast<std::uint32_t>(id)]->call(
      [answer, fn](kvm::VcpuFd& cpu) { *answer = fn(cpu); }, kVcpuTimeout));
  return std::move(**answer);
}

// What decides how a CPU's linear addresses translate.
struct Paging {
  x86::SystemRegisters system;
  std::uint64_t rflags;
};

Result<Paging> paging_of(kvm::VcpuFd& cpu) {
  const x86::Registers general = VMM_TRY(cpu.registers());
  return Paging{VMM_TRY(cpu.system_registers()), general.rflags};
}

}  // namespace

Result<x86::Registers> Vm::registers(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.registers(); });
}

Result<x86::SystemRegisters> Vm::system_registers(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.system_registers(); });
}

Result<void> Vm::set_registers(VcpuId vcpu, const x86::Registers& registers) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu,
                 [registers](kvm::VcpuFd& cpu) { return cpu.set_registers(registers); });
}

Result<void> Vm::set_system_registers(VcpuId vcpu, const x86::SystemRegisters& registers) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu,
                 [registers](kvm::VcpuFd& cpu) { return cpu.set_system_registers(registers); });
}

Result<std::uint64_t> Vm::msr(VcpuId vcpu, std::uint32_t index) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [index](kvm::VcpuFd& cpu) { return cpu.msr(index); });
}

Result<void> Vm::set_msr(VcpuId vcpu, std::uint32_t index, std::uint64_t value) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [index, value](kvm::VcpuFd& cpu) {
    const std::array<kvm::Msr, 1> msrs{{{index, value}}};
    return cpu.set_msrs(msrs);
  });
}

Result<x86::XsaveArea> Vm::xsave(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.xsave(); });
}

Result<void> Vm::set_xsave(VcpuId vcpu, const x86::XsaveArea& area) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [area](kvm::VcpuFd& cpu) { return cpu.set_xsave(area); });
}

namespace {

// Of a machine whose local APICs are this process's: NMIs wait there until the CPU takes them.
void move_nmis_to_chip(const UserIrqchip& chips, VcpuId vcpu, x86::CpuEvents& events) {
  chips.lapics().with([&](LapicBank& bank) {
    Lapic::State state = bank.lapic(vcpu).state();
    state.nmis = std::min(events.nmi_pending, Lapic::kMostNmis);
    bank.lapic(vcpu).set_state(state);
  });
  events.nmi_pending = 0;
}

}  // namespace

Result<x86::CpuEvents> Vm::events(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  x86::CpuEvents events =
      VMM_TRY(on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return kvm::cpu_events(cpu); }));
  if (const UserIrqchip* const chips = impl_->machine->user_irqchip) {
    const auto waiting =
        chips->lapics().with([vcpu](LapicBank& bank) { return bank.lapic(vcpu).state().nmis; });
    events.nmi_pending = static_cast<std::uint8_t>(events.nmi_pending + waiting);
  }
  return events;
}

Result<void> Vm::set_events(VcpuId vcpu, const x86::CpuEvents& events) {
  const auto look = VMM_TRY(impl_->may_look());
  VMM_TRY(check_id(impl_->vcpus, vcpu));
  x86::CpuEvents own = events;
  if (const UserIrqchip* const chips = impl_->machine->user_irqchip) {
    move_nmis_to_chip(*chips, vcpu, own);
  }
  const auto set = [&own](kvm::VcpuFd& cpu, ExitDispatch& dispatch) -> Result<void> {
    VMM_TRY(kvm::set_cpu_events(cpu, own));
    cpu.set_ready_for_interrupt(false);  // what the last KVM_RUN said no longer holds
    if (own.exception_injected || own.exception_pending) dispatch.event_queued();
    return {};
  };
  return impl_->cpus().with(static_cast<std::uint32_t>(vcpu), set);
}

namespace {

Result<void> check_lapics(const HostPlan& plan) {
  if (plan.irqchip != IrqchipMode::kNone) return {};
  return fail(ErrorCode::kUnsupported, "This machine has no local APICs (irqchip none)");
}

}  // namespace

Result<x86::LapicRegisters> Vm::lapic(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  VMM_TRY(check_id(impl_->vcpus, vcpu));
  VMM_TRY(check_lapics(impl_->plan));
  if (const UserIrqchip* const chips = impl_->machine->user_irqchip) {
    return chips->lapics().with([vcpu](LapicBank& bank) { return registers_of(bank.lapic(vcpu)); });
  }
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return kvm::lapic_registers(cpu); });
}

Result<void> Vm::set_lapic(VcpuId vcpu, const x86::LapicRegisters& registers) {
  const auto look = VMM_TRY(impl_->may_look());
  VMM_TRY(check_id(impl_->vcpus, vcpu));
  VMM_TRY(check_lapics(impl_->plan));
  const UserIrqchip* const chips = impl_->machine->user_irqchip;
  if (chips == nullptr) {
    return on_vcpu(impl_->vcpus, vcpu, [registers](kvm::VcpuFd& cpu) {
      return kvm::set_lapic_registers(cpu, registers);
    });
  }
  const std::uint64_t tsc =
      VMM_TRY(on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.msr(x86::kMsrTsc); }));
  const std::int64_t now = impl_->machine->clock.now().count();
  return chips->lapics().with(
      [&](LapicBank& bank) { return vmm::set_registers(bank.lapic(vcpu), registers, now, tsc); });
}

Result<PageWalk> Vm::walk(VcpuId vcpu, Gva address, AccessKind access) const {
  const auto look = VMM_TRY(impl_->may_look());
  const Paging paging = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return walk_pages(memory(), x86::privileged_context(paging.system, paging.rflags), address,
                    access);
}

Result<void> Vm::read_virtual(VcpuId vcpu, Gva from, std::span<std::byte> bytes) const {
  const auto look = VMM_TRY(impl_->may_look());
  const Paging paging = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return read_linear(memory(), paging.system, paging.rflags, from, bytes);
}

Result<void> Vm::write_virtual(VcpuId vcpu, Gva to, std::span<const std::byte> bytes) {
  const auto look = VMM_TRY(impl_->may_look());
  const Paging paging = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return write_linear(memory(), paging.system, paging.rflags, to, bytes);
}

VmStats Vm::stats() const { return impl_->stats(); }

std::vector<std::vector<ExitRecord>> Vm::last_exits(std::size_t most) const {
  std::vector<std::vector<ExitRecord>> all;
  for (const auto& ring : impl_->machine->exit_rings) all.push_back(ring->last(most));
  return all;
}

std::vector<DeviceEvent> Vm::last_events(std::size_t most) const {
  return impl_->machine->events.last(most);
}

Result<std::vector<StackSample>> Vm::sample_stacks(std::size_t most_frames) const {
  std::vector<StackSample> samples;
  for (const auto& vcpu : impl_->vcpus) {
    // Shared with the closure, which may outlive this call.
    auto answer = std::make_shared<Result<StackSample>>(StackSample{});
    const auto look = [answer, most_frames, id = vcpu->id(),
                       &memory = impl_->machine->memory](kvm::VcpuFd& cpu) {
      *answer = sample_stack(cpu, id, memory, most_frames);
    };
    VMM_TRY(vcpu->call(look, kVcpuTimeout));
    samples.push_back(VMM_TRY(std::move(*answer)));
  }
  return samples;
}

}  // namespace vmm

// The CPUs' registers, as the debugger sees and changes them.
#include <array>
#include <optional>
#include <utility>

#include "vmm/debug/debugger_on_cpu.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::debug {
namespace {

Result<CpuState> read_state(const kvm::VcpuFd& fd) {
  CpuState state;
  state.general = VMM_TRY(fd.registers());
  state.system = VMM_TRY(fd.system_registers());
  state.xsave = VMM_TRY(fd.xsave());
  state.debug = VMM_TRY(fd.debug_registers());
  std::array<kvm::Msr, kNamedMsrs.size()> msrs;
  for (std::size_t i = 0; i < msrs.size(); ++i) msrs[i].index = kNamedMsrs[i].index;
  // KVM stops at the first that it does not know.
  for (std::size_t i = 0; i < msrs.size(); ++i) {
    const std::size_t read = VMM_TRY(fd.read_msrs(std::span(msrs).subspan(i)));
    for (std::size_t end = i + read; i < end; ++i) state.msrs[i] = msrs[i].value;
  }
  return state;
}

// KVM takes some states without a word, and leaves what it cannot do: 32-bit paging on a software
// KVM.
Result<void> check_taken(const x86::SystemRegisters& before, const x86::SystemRegisters& wanted,
                         const x86::SystemRegisters& taken) {
  using Field = std::uint64_t x86::SystemRegisters::*;
  const std::array<std::pair<std::string_view, Field>, 5> fields{
      {{"cr0", &x86::SystemRegisters::cr0},
       {"cr3", &x86::SystemRegisters::cr3},
       {"cr4", &x86::SystemRegisters::cr4},
       {"cr8", &x86::SystemRegisters::cr8},
       {"efer", &x86::SystemRegisters::efer}}};
  for (const auto& [name, field] : fields) {
    const std::uint64_t left = (wanted.*field ^ before.*field) & (wanted.*field ^ taken.*field);
    if (left == 0) continue;
    return fail(ErrorCode::kUnsupported, "this host's KVM leaves bits {:#x} of {} as they are",
                left, name);
  }
  return {};
}

// It counts on from what it was, or from what was wanted: from the nearer one below it.
Result<void> check_tsc_taken(const kvm::VcpuFd& fd, std::uint64_t before, std::uint64_t wanted) {
  const std::uint64_t taken = VMM_TRY(fd.msr(x86::kMsrTsc));
  if (taken - wanted <= taken - before) return {};
  return fail(ErrorCode::kUnsupported, "this host's KVM leaves the time stamp counter as it is");
}

Result<void> write_state(const kvm::VcpuFd& fd, const CpuState& now, const CpuState& wanted) {
  if (wanted.system != now.system) VMM_TRY(fd.set_system_registers(wanted.system));
  if (wanted.general != now.general) VMM_TRY(fd.set_registers(wanted.general));
  if (wanted.xsave != now.xsave) VMM_TRY(fd.set_xsave(wanted.xsave));
  if (wanted.debug != now.debug) VMM_TRY(fd.set_debug_registers(wanted.debug));
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    if (!wanted.msrs[i] || !now.msrs[i]) continue;
    const std::uint64_t value = *wanted.msrs[i];
    if (value == *now.msrs[i]) continue;
    const std::array<kvm::Msr, 1> msrs{{{kNamedMsrs[i].index, value}}};
    VMM_TRY(fd.set_msrs(msrs));
    if (kNamedMsrs[i].index == x86::kMsrTsc) VMM_TRY(check_tsc_taken(fd, *now.msrs[i], value));
  }
  if (wanted.system == now.system) return {};
  return check_taken(now.system, wanted.system, VMM_TRY(fd.system_registers()));
}

// A CPU that is sent elsewhere is to execute what lies there, be it halted: gdb calls functions
// that way.
Result<void> end_halt(const kvm::VcpuFd& fd, VcpuId id, UserIrqchip* irqchip) {
  if (irqchip != nullptr) {
    irqchip->lapics().with([id](LapicBank& bank) { bank.lapic(id).set_halted(false); });
    return {};
  }
  if (VMM_TRY(fd.mp_state()) == kvm::MpState::kHalted)
    VMM_TRY(fd.set_mp_state(kvm::MpState::kRunnable));
  return {};
}

}  // namespace

Result<CpuState> Debugger::state_locked(unsigned cpu) const {
  return on_cpu(cpu, [](kvm::VcpuFd& fd) { return read_state(fd); });
}

Result<CpuState> Debugger::state(unsigned cpu) {
  const auto lock = lock_machine();
  return state_locked(cpu);
}

Result<void> Debugger::set_state(unsigned cpu, const CpuState& state) {
  const auto lock = lock_machine();
  VMM_TRY(in_present());
  history_.changed = true;
  contexts_.clear();
  UserIrqchip* irqchip = VMM_TRY(machine())->machine().user_irqchip;
  return on_cpu(cpu, [cpu, state, irqchip](kvm::VcpuFd& fd) -> Result<void> {
    const CpuState now = VMM_TRY(read_state(fd));
    if (state.general.rip != now.general.rip) VMM_TRY(end_halt(fd, VcpuId{cpu}, irqchip));
    VMM_TRY(write_state(fd, now, state));
    if (irqchip != nullptr && state.system.cr8 != now.system.cr8) {
      // It is the local APIC's, and KVM gets it at each entry.
      irqchip->lapics().with([cpu, &state](LapicBank& bank) {
        bank.lapic(VcpuId{cpu}).set_cr8(static_cast<std::uint8_t>(state.system.cr8));
      });
    }
    return {};
  });
}

std::string Debugger::activity(unsigned cpu) {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return "starting";
  const Machine& machine = control_->machine();
  if (machine.user_irqchip != nullptr) {
    const auto activity = machine.user_irqchip->lapics().with(
        [cpu](LapicBank& bank) { return bank.lapic(VcpuId{cpu}).state().activity; });
    return activity == Lapic::Activity::kHalted           ? "halted"
           : activity == Lapic::Activity::kWaitForStartUp ? "waiting for start-up"
                                                          : "running";
  }
  const auto state = on_cpu(cpu, [](kvm::VcpuFd& fd) { return fd.mp_state(); });
  if (!state) return "not answering";
  switch (*state) {
    case kvm::MpState::kHalted:
      return "halted";
    case kvm::MpState::kUninitialized:
    case kvm::MpState::kInitReceived:
    case kvm::MpState::kSipiReceived:
      return "waiting for start-up";
    case kvm::MpState::kRunnable:
    case kvm::MpState::kOther:
      break;
  }
  return "running";
}

Architecture Debugger::architecture(unsigned cpu) {
  const auto state = this->state(cpu);
  if (!state || state->system.code_is_64bit()) return Architecture::kX86_64;
  return state->system.cs.default_big ? Architecture::kI386 : Architecture::kI8086;
}

}  // namespace vmm::debug

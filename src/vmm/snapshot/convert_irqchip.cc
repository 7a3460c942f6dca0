#include "vmm/snapshot/convert_irqchip.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "devices/hpet.h"
#include "devices/lapic_bank.h"
#include "devices/lapic_timer.h"
#include "devices/pic8259.h"
#include "devices/state_io.h"
#include "vmm/kvm/convert_chips.h"
#include "vmm/kvm/lapic_register_page.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

constexpr const char* kLapics = "lapics";
constexpr const char* kPic = "pic";
constexpr const char* kIoapic = "ioapic";
constexpr const char* kPit = "pit";
constexpr const char* kHpet = "hpet";
constexpr std::uint32_t kAsyncPfMsr = 0x4b56'4d02;  // MSR_KVM_ASYNC_PF_EN

using kvm::LapicRegisterPage;

Result<LapicRegisterPage> page_of(const kvm::VcpuState& cpu) {
  if (!cpu.lapic || cpu.lapic->bytes.size() != LapicRegisterPage::kSize) {
    return fail(ErrorCode::kBadState, "The state of a CPU has no local APIC of KVM's");
  }
  return LapicRegisterPage(cpu.lapic->bytes);
}

std::optional<std::uint64_t> msr(const kvm::VcpuState& cpu, std::uint32_t index) {
  const auto found = std::find_if(cpu.msrs.begin(), cpu.msrs.end(),
                                  [&](const kvm::Msr& one) { return one.index == index; });
  return found != cpu.msrs.end() ? std::optional(found->value) : std::nullopt;
}

void set_msr(kvm::VcpuState& cpu, std::uint32_t index, std::uint64_t value) {
  std::erase_if(cpu.msrs, [&](const kvm::Msr& one) { return one.index == index; });
  cpu.msrs.push_back({index, value});
}

bool is_x2apic(std::uint64_t base) { return (base & Lapic::kBaseX2apic) != 0; }

// ---- from this process to KVM

LapicRegisterPage to_page(const Lapic::State& apic, std::int64_t now) {
  LapicRegisterPage page;
  const bool x2apic = is_x2apic(apic.base);
  page.set(Lapic::kId, apic.id << 24);
  page.set(Lapic::kTpr, apic.tpr);
  page.set(Lapic::kLdr,
           x2apic ? (apic.id >> 4) << 16 | 1U << (apic.id & 15) : std::uint32_t{apic.ldr} << 24);
  page.set(Lapic::kDfr, std::uint32_t{apic.dfr} << 28 | 0x0fff'ffff);
  page.set(Lapic::kSvr, apic.svr);
  page.set_many(Lapic::kIsr, apic.isr);
  page.set_many(Lapic::kTmr, apic.tmr);
  page.set_many(Lapic::kIrr, apic.irr);
  page.set(Lapic::kEsr, apic.esr);
  page.set(Lapic::kIcr, static_cast<std::uint32_t>(apic.icr));
  page.set(Lapic::kIcrHigh, static_cast<std::uint32_t>(apic.icr >> 32));
  page.set_many(Lapic::kLvtTimer, apic.lvt);
  LapicTimer::State timer = apic.timer;
  page.set(Lapic::kInitialCount, timer.initial_count);
  page.set(Lapic::kCurrentCount, LapicTimer(timer).current_count(now));
  page.set(Lapic::kDivide, timer.divide);
  return page;
}

kvm::MpState to_kvm(Lapic::Activity activity) {
  switch (activity) {
    case Lapic::Activity::kHalted:
      return kvm::MpState::kHalted;
    case Lapic::Activity::kWaitForStartUp:
      return kvm::MpState::kInitReceived;  // where a start-up IPI is taken with or without an INIT
    case Lapic::Activity::kActive:
      break;
  }
  return kvm::MpState::kRunnable;
}

Result<void> move_to_kvm(const Lapic::State& apic, std::int64_t now, kvm::VcpuState& cpu) {
  if (apic.init || apic.start_up) {
    return fail(ErrorCode::kUnsupported,
                "A CPU was being started when the snapshot was taken, which KVM's local APIC "
                "cannot be told: go on with --irqchip user");
  }
  cpu.lapic = Blob{to_page(apic, now).take()};
  cpu.mp_state = static_cast<std::uint8_t>(to_kvm(apic.activity));
  cpu.system.apic_base = apic.base;
  cpu.system.cr8 = apic.tpr >> 4;
  cpu.events.nmi_pending = static_cast<std::uint8_t>(
      std::min<unsigned>(cpu.events.nmi_pending + unsigned{apic.nmis}, Lapic::kMostNmis));
  const bool deadline = apic.timer.mode == LapicTimer::Mode::kTscDeadline && apic.timer.running;
  set_msr(cpu, x86::kMsrTscDeadline, deadline ? apic.timer.tsc_deadline : 0);
  return {};
}

template <typename State>
Result<State> state_of(const WholeState& whole, const char* id) {
  const auto found = whole.devices.find(id);
  if (found == whole.devices.end()) {
    return fail(ErrorCode::kBadState, "The snapshot has no state of device '{}'", id);
  }
  return StateReader(found->second).get<State>();
}

template <typename State>
void put_state(WholeState& whole, const char* id, const State& state) {
  StateWriter writer;
  writer.put(state);
  whole.devices.insert_or_assign(id, writer.whole());
}

Result<void> to_split(WholeState& state) {
  MachineState& machine = state.machine;
  const auto bank = VMM_TRY(state_of<LapicBank::State>(state, kLapics));
  if (bank.lapics.size() != machine.cpus.size()) {
    return fail(ErrorCode::kBadState, "The snapshot has {} local APICs for {} CPUs",
                bank.lapics.size(), machine.cpus.size());
  }
  for (std::size_t i = 0; i < bank.lapics.size(); ++i) {
    VMM_TRY(move_to_kvm(bank.lapics[i], machine.guest_time, machine.cpus[i]));
  }
  state.devices.erase(kLapics);
  return {};
}

// ---- from KVM to this process

// The timer, from the registers of one that was read at `now`.
LapicTimer::State timer_of(const LapicRegisterPage& page, const kvm::VcpuState& cpu,
                           std::uint32_t khz, std::int64_t now) {
  LapicTimer::State state;
  LapicTimer timer(state);
  timer.set_divide(static_cast<std::uint8_t>(page.get(Lapic::kDivide)), now);
  const std::uint32_t mode = (page.get(Lapic::kLvtTimer) & Lapic::kLvtTimerMode) >> 17;
  timer.set_mode(static_cast<LapicTimer::Mode>(std::min(mode, 2U)));
  if (state.mode == LapicTimer::Mode::kTscDeadline) {
    timer.set_tsc_deadline(msr(cpu, x86::kMsrTscDeadline).value_or(0),
                           msr(cpu, x86::kMsrTsc).value_or(0), khz, now);
    return state;
  }
  // What is left of the count says when it is due; then the count is what it was.
  const std::uint32_t initial = page.get(Lapic::kInitialCount);
  timer.set_initial_count(std::min(page.get(Lapic::kCurrentCount), initial), now);
  state.initial_count = initial;
  return state;
}

Lapic::Activity activity_of(kvm::MpState state) {
  switch (state) {
    case kvm::MpState::kHalted:
      return Lapic::Activity::kHalted;
    case kvm::MpState::kUninitialized:
    case kvm::MpState::kInitReceived:
    case kvm::MpState::kSipiReceived:
      return Lapic::Activity::kWaitForStartUp;
    case kvm::MpState::kRunnable:
    case kvm::MpState::kOther:
      break;
  }
  return Lapic::Activity::kActive;
}

Result<Lapic::State> move_from_kvm(const MachineState& machine, kvm::VcpuState& cpu) {
  const LapicRegisterPage page = VMM_TRY(page_of(cpu));
  Lapic::State apic;
  apic.base = cpu.system.apic_base;
  apic.id = page.get(Lapic::kId) >> 24;
  apic.tpr = static_cast<std::uint8_t>(page.get(Lapic::kTpr));
  if (!is_x2apic(apic.base)) apic.ldr = static_cast<std::uint8_t>(page.get(Lapic::kLdr) >> 24);
  apic.dfr = static_cast<std::uint8_t>(page.get(Lapic::kDfr) >> 28);
  apic.svr = page.get(Lapic::kSvr);
  page.get_many(Lapic::kIsr, apic.isr);
  page.get_many(Lapic::kTmr, apic.tmr);
  page.get_many(Lapic::kIrr, apic.irr);
  apic.esr = page.get(Lapic::kEsr);
  apic.icr = std::uint64_t{page.get(Lapic::kIcrHigh)} << 32 | page.get(Lapic::kIcr);
  page.get_many(Lapic::kLvtTimer, apic.lvt);
  apic.timer = timer_of(page, cpu, machine.tsc_khz, machine.guest_time);
  const auto mp_state = static_cast<kvm::MpState>(cpu.mp_state);
  apic.activity = activity_of(mp_state);
  if (mp_state == kvm::MpState::kSipiReceived) {
    apic.start_up = static_cast<std::uint8_t>(cpu.events.sipi_vector);
  }
  cpu.lapic.reset();
  cpu.mp_state = static_cast<std::uint8_t>(kvm::MpState::kRunnable);
  cpu.system.cr8 = apic.tpr >> 4;
  set_msr(cpu, x86::kMsrTscDeadline, 0);
  // KVM tells a guest about pages on their way by its own local APICs only. One that is not told
  // waits instead.
  if (msr(cpu, kAsyncPfMsr)) set_msr(cpu, kAsyncPfMsr, 0);
  return apic;
}

// The level of the PIC's output, which is wired to LINT0 of the boot CPU.
Result<bool> pic_output(const WholeState& state) {
  const auto found = state.devices.find(kPic);
  if (found == state.devices.end()) {
    return fail(ErrorCode::kBadState, "The snapshot has no state of device '{}'", kPic);
  }
  Pic8259 pic(kPic, {});
  VMM_TRY(pic.restore(StateReader(found->second)));
  return pic.interrupt_pending();
}

// What a guest has come to use has to be there.
Result<void> check_lapic(const Lapic::State& apic, const MachineShape& machine) {
  const bool deadline = apic.timer.mode == LapicTimer::Mode::kTscDeadline;
  if (machine.apic_msrs || (!is_x2apic(apic.base) && !deadline)) return {};
  return fail(ErrorCode::kUnsupported,
              "The guest uses the {}, and this host's KVM does not give its MSRs to --irqchip user",
              deadline ? "TSC-deadline timer" : "x2APIC");
}

auto fail_held() {
  return fail(ErrorCode::kUnsupported,
              "An interrupt of the PIC was on its way to the CPU when the snapshot was taken: go "
              "on with --irqchip split");
}

Result<void> to_user(WholeState& state, const MachineShape& target) {
  MachineState& machine = state.machine;
  if (machine.held_interrupt) return fail_held();
  LapicBank::State bank;
  for (kvm::VcpuState& cpu : machine.cpus) {
    bank.lapics.push_back(VMM_TRY(move_from_kvm(machine, cpu)));
    VMM_TRY(check_lapic(bank.lapics.back(), target));
  }
  bank.lapics.front().lint[0] = VMM_TRY(pic_output(state));
  put_state(state, kLapics, bank);
  return {};
}

// ---- the other chips, between a KVM that has the local APICs only and one that has all

PitTick pit_time(const MachineState& machine) {
  return Pit8254::ticks(std::chrono::nanoseconds(machine.guest_time));
}

Result<void> split_to_kernel(WholeState& state) {
  MachineState& machine = state.machine;
  if (machine.held_interrupt) return fail_held();
  kvm::OwnChips chips{.pic = VMM_TRY(state_of<Pic8259::State>(state, kPic)),
                      .ioapic = VMM_TRY(state_of<Ioapic::State>(state, kIoapic)),
                      .pit = VMM_TRY(state_of<Pit8254::State>(state, kPit))};
  const auto hpet = VMM_TRY(state_of<Hpet::State>(state, kHpet));
  machine.chips = VMM_TRY(kvm::chips_to_kvm(chips, pit_time(machine), hpet.replaces()));
  for (const char* const id : {kPic, kIoapic, kPit}) state.devices.erase(id);
  return {};
}

Result<void> kernel_to_split(WholeState& state) {
  MachineState& machine = state.machine;
  if (!machine.chips) {
    return fail(ErrorCode::kBadState, "The snapshot has no state of KVM's interrupt controllers");
  }
  const kvm::OwnChips chips = VMM_TRY(kvm::chips_from_kvm(*machine.chips, pit_time(machine)));
  put_state(state, kPic, chips.pic);
  put_state(state, kIoapic, chips.ioapic);
  put_state(state, kPit, chips.pit);
  machine.chips.reset();
  return {};
}

// Through split, which has half of each.
Result<void> convert(WholeState& state, const MachineShape& machine) {
  using enum IrqchipMode;
  const IrqchipMode from = state.machine.shape.irqchip;
  if (from == kNone || machine.irqchip == kNone) {
    return fail(ErrorCode::kUnsupported,
                "A machine without interrupt controllers cannot be given any, nor lose them");
  }
  if (from == kUser) VMM_TRY(to_split(state));
  if (from == kKernel) VMM_TRY(kernel_to_split(state));
  if (machine.irqchip == kUser) VMM_TRY(to_user(state, machine));
  if (machine.irqchip == kKernel) VMM_TRY(split_to_kernel(state));
  return {};
}

}  // namespace

Result<WholeState> convert_irqchip(const WholeState& state, const MachineShape& machine) {
  WholeState converted = state;
  MachineShape& shape = converted.machine.shape;
  if (shape.irqchip != machine.irqchip) VMM_TRY(convert(converted, machine));
  shape.irqchip = machine.irqchip;
  shape.apic_msrs = machine.apic_msrs;
  return converted;
}

}  // namespace vmm

#include "vmm/lapic_access.h"

#include <algorithm>
#include <array>

#include "base/le.h"

namespace vmm {
namespace {

using Registers = x86::LapicRegisters;

constexpr unsigned kLdrShift = 24, kDfrShift = 28;

constexpr auto kLvt = Registers::lvt();
static_assert(kLvt.size() == Lapic::kLvtEntries);

// What follows from the state, as the guest would read it; 0 while the local APIC is off.
std::uint32_t read(Lapic& lapic, Lapic::Register number) {
  if (lapic.x2apic()) {
    return static_cast<std::uint32_t>(lapic.read_msr(Lapic::kFirstMsr + number).value_or(0));
  }
  std::array<std::byte, 4> bytes{};
  lapic.read({.offset = std::uint64_t{number} * 16, .vcpu = lapic.cpu()}, bytes);
  return static_cast<std::uint32_t>(load_le(bytes));
}

LapicTimer::State timer_with(LapicTimer::State state, const Registers& registers,
                             std::int64_t now) {
  using Mode = LapicTimer::Mode;
  LapicTimer timer(state);
  const std::uint32_t mode = (registers.lvt_timer & Lapic::kLvtTimerMode) >> 17;
  timer.set_mode(static_cast<Mode>(std::min<std::uint32_t>(mode, 2)));
  // Not set_divide(): its own bits are to be judged.
  state.divide = static_cast<std::uint8_t>(std::min<std::uint32_t>(registers.divide, 0xff));
  if (state.mode == Mode::kTscDeadline) return state;
  const bool anew = state.mode == Mode::kPeriodic && registers.current_count == 0;
  timer.set_initial_count(anew ? registers.initial_count : registers.current_count, now);
  state.initial_count = registers.initial_count;
  return state;
}

}  // namespace

Registers registers_of(Lapic& lapic) {
  Registers r;
  r.version = read(lapic, Lapic::kVersion);
  r.ppr = static_cast<std::uint8_t>(read(lapic, Lapic::kPpr));
  r.ldr = read(lapic, Lapic::kLdr);
  r.current_count = read(lapic, Lapic::kCurrentCount);
  r.tsc_deadline = lapic.tsc_deadline();
  // Those reads have let the timer catch up.
  const Lapic::State& state = lapic.state();
  r.id = static_cast<std::uint8_t>(state.id);
  r.tpr = state.tpr;
  r.dfr = std::uint32_t{state.dfr} << kDfrShift | 0x0fff'ffff;
  r.svr = state.svr;
  r.isr = state.isr;
  r.tmr = state.tmr;
  r.irr = state.irr;
  r.esr = state.esr;
  r.icr = state.icr;
  for (std::size_t i = 0; i < kLvt.size(); ++i) r.*kLvt[i] = state.lvt[i];
  r.initial_count = state.timer.initial_count;
  r.divide = state.timer.divide;
  return r;
}

Result<void> set_registers(Lapic& lapic, const Registers& r, std::int64_t now, std::uint64_t tsc) {
  Lapic::State state = lapic.state();
  state.id = r.id;
  state.tpr = r.tpr;
  if (!lapic.x2apic()) state.ldr = static_cast<std::uint8_t>(r.ldr >> kLdrShift);
  state.dfr = static_cast<std::uint8_t>(r.dfr >> kDfrShift);
  state.svr = r.svr;
  state.isr = r.isr;
  state.tmr = r.tmr;
  state.irr = r.irr;
  state.esr = r.esr;
  state.icr = r.icr;
  const std::uint32_t masked = (r.svr & Lapic::kSvrEnable) != 0 ? 0 : Lapic::kLvtMasked;
  for (std::size_t i = 0; i < kLvt.size(); ++i) state.lvt[i] = r.*kLvt[i] | masked;
  state.timer = timer_with(state.timer, r, now);
  if (auto sound = state.validate(); !sound) {
    return fail(ErrorCode::kBadConfig, "{}", sound.error().message());
  }
  lapic.set_state(state);
  if (state.timer.mode == LapicTimer::Mode::kTscDeadline) {
    lapic.set_tsc_deadline(r.tsc_deadline, tsc);
  }
  return {};
}

}  // namespace vmm

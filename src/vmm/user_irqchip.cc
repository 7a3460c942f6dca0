#include "vmm/user_irqchip.h"

#include <ctime>

#include "vmm/x86/entry_state.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPageMask = ~std::uint64_t{Lapic::kWindowSize - 1};

constexpr VcpuId kBootCpu{0};

// What a CPU has run, its exits included: its thread's time.
TickGovernor::Time run_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

VcpuId id_of(const kvm::VcpuFd& fd) { return static_cast<VcpuId>(fd.id()); }

// KVM has judged each write of the APIC base by the same rules, and keeps the value. Without a
// filter none makes the guest leave KVM_RUN: what looks like a forbidden step was several, through
// the modes between.
void follow_base(Lapic& lapic, std::uint64_t base) {
  if (lapic.set_base(base)) return;
  lapic.set_base(base & ~(Lapic::kBaseEnable | Lapic::kBaseX2apic));
  lapic.set_base(base & ~Lapic::kBaseX2apic);
  lapic.set_base(base);
}

}  // namespace

UserIrqchip::UserIrqchip(const Options& options)
    : clock_(options.clock),
      lapics_(make_device<LapicBank>(
          "lapics", options.cpus,
          LapicBank::Ports{
              .clock = options.clock,
              .attention = [this](VcpuId id) { attend(id); },
              .on_eoi = [this](VcpuId id, std::uint8_t vector) { cpu(id).ended.set(vector); },
              .tsc_khz = options.tsc_khz,
              .x2apic = options.x2apic})),
      chips_({.messages = this, .routes_changed = {}}, IrqLine(&intr_)) {
  tick_hold_.on_wait = [this] {
    if (wake_) wake_(kBootCpu);
  };
  for (std::uint32_t i = 0; i < options.cpus; ++i) {
    cpus_.push_back(std::make_unique<Cpu>(options.tick_share));
  }
  lapics_.with([this](LapicBank& bank) {
    bank_ = &bank;
    for (std::uint32_t i = 0; i < bank.count(); ++i) {
      attend(VcpuId{i});
      cpus_[i]->base = bank.lapic(VcpuId{i}).state().base;
    }
  });
}

// With the local APICs' lock held.
void UserIrqchip::attend(VcpuId id) {
  cpu(id).page.store(bank_->lapic(id).page().value_or(Cpu::kNoPage), std::memory_order_relaxed);
  if (wake_) wake_(id);
}

void UserIrqchip::Intr::set_level(bool asserted) {
  chip.lapics_.with([asserted](LapicBank& bank) { bank.lapic(VcpuId{0}).set_lint(0, asserted); });
}

void UserIrqchip::set_gsi(std::uint32_t gsi, bool asserted) { chips_.set_gsi(gsi, asserted); }

IrqLine UserIrqchip::tick_line(IrqLine out) {
  tick_gates_.push_back(std::make_unique<TickGate>(out, tick_hold_));
  return IrqLine(tick_gates_.back().get());
}

void UserIrqchip::send(std::uint64_t address, std::uint32_t data) {
  const auto message = decode_msi(address, data);
  if (message) lapics_.with([&](LapicBank& bank) { bank.deliver(*message); });
}

bool UserIrqchip::asleep_for_ever() const {
  return lapics_.with([this](LapicBank& bank) {
    bool any_halted = false;
    for (std::uint32_t i = 0; i < bank.count(); ++i) {
      const Lapic::State& state = bank.lapic(VcpuId{i}).state();
      const bool halted = state.activity == Lapic::Activity::kHalted &&
                          !cpus_[i]->interrupts_on.load(std::memory_order_relaxed);
      if (state.init || state.nmis != 0 || state.start_up) return false;
      if (!halted && state.activity != Lapic::Activity::kWaitForStartUp) return false;
      any_halted = any_halted || halted;
    }
    return any_halted;
  });
}

[[gnu::hot]] void UserIrqchip::on_exit(const kvm::VcpuFd& fd) {
  Cpu& mine = cpu(id_of(fd));
  const std::uint64_t base = fd.apic_base();
  const std::uint8_t cr8 = fd.cr8();
  if (mine.base == base && mine.cr8 == cr8) return;
  lapics_.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(id_of(fd));
    if (mine.cr8 != cr8) lapic.set_cr8(cr8);
    if (mine.base != base) follow_base(lapic, base);
  });
  mine.base = base;
  mine.cr8 = cr8;
}

[[gnu::hot]] bool UserIrqchip::read(VcpuId id, std::uint64_t address, std::span<std::byte> data) {
  if ((address & kPageMask) != cpu(id).page.load(std::memory_order_relaxed)) return false;
  lapics_.with([&](LapicBank& bank) {
    bank.read({.offset = address & ~kPageMask, .address = address, .vcpu = id}, data);
  });
  return true;
}

[[gnu::hot]] bool UserIrqchip::write(VcpuId id, std::uint64_t address,
                                     std::span<const std::byte> data) {
  if ((address & kPageMask) != cpu(id).page.load(std::memory_order_relaxed)) return false;
  lapics_.with([&](LapicBank& bank) {
    bank.write({.offset = address & ~kPageMask, .address = address, .vcpu = id}, data);
  });
  return true;
}

// KVM has a copy, which CPUID's APIC bit follows.
Result<bool> UserIrqchip::set_base(const kvm::VcpuFd& fd, std::uint64_t value) {
  Cpu& mine = cpu(id_of(fd));
  const auto tell_kvm = [&fd](std::uint64_t base) {
    return fd.set_msrs(std::array{kvm::Msr{.index = x86::kMsrApicBase, .value = base}});
  };
  if (!tell_kvm(value)) return false;  // bits that this CPU does not have
  if (!lapics_.with([&](LapicBank& bank) { return bank.lapic(id_of(fd)).set_base(value); })) {
    VMM_TRY(tell_kvm(mine.base));
    return false;
  }
  mine.base = value;
  return true;
}

Result<bool> UserIrqchip::on_msr(kvm::VcpuFd& fd, const MsrExit& exit) {
  if (exit.index == x86::kMsrApicBase && exit.is_write) {
    fd.answer_msr(0, !VMM_TRY(set_base(fd, exit.value)));
    return true;
  }
  if (!answers(exit.index)) return false;
  const bool x2apic = exit.index != x86::kMsrTscDeadline;
  const std::uint64_t tsc =
      exit.index == x86::kMsrTscDeadline && exit.is_write ? VMM_TRY(fd.msr(x86::kMsrTsc)) : 0;
  std::optional<std::uint64_t> answer;
  lapics_.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(id_of(fd));
    if (x2apic) {
      answer = !exit.is_write                            ? lapic.read_msr(exit.index)
               : lapic.write_msr(exit.index, exit.value) ? std::optional<std::uint64_t>(0)
                                                         : std::nullopt;
    } else if (exit.is_write) {
      lapic.set_tsc_deadline(exit.value, tsc);
      answer = 0;
    } else {
      answer = lapic.tsc_deadline();
    }
  });
  fd.answer_msr(answer.value_or(0), !answer);
  return true;
}

void UserIrqchip::on_halt(VcpuId id) {
  cpu(id).governor.idle();
  lapics_.with([id](LapicBank& bank) { bank.lapic(id).set_halted(true); });
}

[[gnu::hot]] void UserIrqchip::after_exit(VcpuId id) {
  Cpu& mine = cpu(id);
  if (mine.ended.none()) return;
  for (std::size_t vector = 0; vector < mine.ended.size(); ++vector) {
    if (mine.ended.test(vector)) chips_.end_of_interrupt(static_cast<std::uint8_t>(vector));
  }
  mine.ended.reset();
}

[[gnu::hot]] UserIrqchip::Look UserIrqchip::look(VcpuId id, bool take) {
  return lapics_.with([id, take](LapicBank& bank) {
    Lapic& lapic = bank.lapic(id);
    lapic.on_time();
    Look look;
    if (take) {
      look.init = lapic.take_init();
      look.start_up = lapic.take_start_up();
      while (lapic.take_nmi()) ++look.nmis;
    }
    look.activity = lapic.state().activity;
    look.interrupt = lapic.has_interrupt();
    look.ext_int = lapic.wants_ext_int();
    look.cr8 = lapic.cr8();
    look.next_event = lapic.next_event();
    return look;
  });
}

Result<void> UserIrqchip::restart(kvm::VcpuFd& fd, const Look& look) {
  // An instruction that KVM has yet to finish would write over what is set here. Finishing it takes
  // kicks away, so there is one more.
  (void)VMM_TRY(fd.complete_pending());
  fd.set_immediate_exit(true);
  x86::EntryState state = x86::after_init(VMM_TRY(fd.system_registers()));
  if (look.start_up) x86::start_up_at(state, *look.start_up);
  VMM_TRY(fd.clear_events());
  VMM_TRY(fd.set_system_registers(state.system));
  return fd.set_registers(state.registers);
}

Result<bool> UserIrqchip::wakes(kvm::VcpuFd& fd, const Look& look) {
  const bool interrupts_on = (VMM_TRY(fd.registers()).rflags & x86::kFlagIf) != 0;
  cpu(id_of(fd)).interrupts_on.store(interrupts_on, std::memory_order_relaxed);
  if (look.nmis == 0 && !(interrupts_on && look.interrupt)) return false;
  lapics_.with([&](LapicBank& bank) { bank.lapic(id_of(fd)).set_halted(false); });
  return true;
}

Result<std::uint8_t> UserIrqchip::inject(kvm::VcpuFd& fd, const Look& look) {
  const VcpuId id = id_of(fd);
  // Not under the local APICs' lock: the PIC lowers its output, which takes it.
  const std::uint8_t pic_vector = look.ext_int ? chips_.acknowledge_pic() : std::uint8_t{0};
  bool tick = false;
  const std::uint8_t vector = lapics_.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(id);
    if (!look.ext_int) {
      const std::uint8_t highest = lapic.acknowledge();
      tick = lapic.timer_vector() == highest;
      return highest;
    }
    lapic.ext_int_taken();
    return pic_vector;
  });
  VMM_TRY(fd.interrupt(vector));
  // Any interrupt may be a wired timer's while that has one on its way.
  tick =
      tick || (id == kBootCpu && tick_hold_.on_its_way.exchange(false, std::memory_order_relaxed));
  if (tick) cpu(id).governor.delivered(run_time());
  return vector;
}

void UserIrqchip::hold(VcpuId id, TickGovernor::Time left) {
  cpu(id).holding = true;
  if (id == kBootCpu) tick_hold_.held.store(true, std::memory_order_release);
  lapics_.with([&](LapicBank& bank) { bank.lapic(id).hold_timer(clock_->now() + left); });
}

void UserIrqchip::let_go(VcpuId id) {
  cpu(id).holding = false;
  const bool held = lapics_.with([&](LapicBank& bank) {
    const bool late = bank.lapic(id).timer_held();
    bank.lapic(id).hold_timer(std::nullopt);
    return late;
  });
  if (held) held_ticks_.fetch_add(1, std::memory_order_relaxed);
  if (id != kBootCpu) return;
  tick_hold_.held.store(false, std::memory_order_release);
  for (const auto& gate : tick_gates_) {
    if (gate->let_go()) held_ticks_.fetch_add(1, std::memory_order_relaxed);
  }
  tick_hold_.waits.store(false, std::memory_order_relaxed);
}

void UserIrqchip::release_ticks(VcpuId id) { let_go(id); }

void UserIrqchip::restored(VcpuId id) {
  Cpu& mine = cpu(id);
  mine.ended.reset();
  lapics_.with([&](LapicBank& bank) { mine.base = bank.lapic(id).state().base; });
}

[[gnu::hot]] void UserIrqchip::pace(kvm::VcpuFd& fd) {
  const VcpuId id = id_of(fd);
  Cpu& mine = cpu(id);
  const bool handled = mine.governor.handling() && fd.ready_for_interrupt();
  if (!handled && !mine.holding) return;
  const TickGovernor::Time now = run_time();
  if (handled) mine.governor.handled(now);
  const TickGovernor::Time left = mine.governor.left(now);
  if (left > TickGovernor::Time(0)) {
    hold(id, left);
  } else if (mine.holding) {
    let_go(id);
  }
}

[[gnu::hot]] NextStep UserIrqchip::next_step(bool enter, const Look& look) const {
  NextStep step{.enter = enter, .deadline = {}};
  if (look.next_event && clock_ != nullptr) step.deadline = clock_->host_time(*look.next_event);
  return step;
}

// A local APIC's own timer has its end among the events; a tick that waits on its wire has none.
[[gnu::hot]] void UserIrqchip::end_hold_in_time(VcpuId id, NextStep& step) {
  Cpu& mine = cpu(id);
  if (!mine.holding || id != kBootCpu || !tick_hold_.waits.load(std::memory_order_acquire)) return;
  const auto end = std::chrono::steady_clock::now() + mine.governor.left(run_time());
  if (!step.deadline || *step.deadline > end) step.deadline = end;
}

[[gnu::hot]] Result<NextStep> UserIrqchip::before_entry(kvm::VcpuFd& fd, bool hold) {
  const VcpuId id = id_of(fd);
  pace(fd);
  Look now = look(id, true);
  if (now.init || now.start_up) VMM_TRY(restart(fd, now));
  if (now.activity == Lapic::Activity::kWaitForStartUp) return next_step(false, now);
  for (unsigned i = 0; i < now.nmis; ++i) VMM_TRY(fd.nmi());
  const bool nmi = now.nmis != 0;
  if (now.activity == Lapic::Activity::kHalted && !VMM_TRY(wakes(fd, now))) {
    return next_step(false, now);
  }
  const bool other_event = now.init || now.start_up || nmi;
  std::optional<std::uint8_t> vector;
  if (now.interrupt && !hold && fd.ready_for_interrupt()) {
    vector = VMM_TRY(inject(fd, now));
    now = look(id, false);  // another one may wait
  }
  // The first moment at which it takes interrupts again is the end of a tick, too.
  fd.request_interrupt_window(!hold && (now.interrupt || cpu(id).governor.handling()));
  fd.set_cr8(now.cr8);
  cpu(id).cr8 = now.cr8;
  NextStep step = next_step(true, now);
  end_hold_in_time(id, step);
  step.interrupt = vector;
  step.other_event = other_event;
  step.nmi = nmi;
  return step;
}

}  // namespace vmm

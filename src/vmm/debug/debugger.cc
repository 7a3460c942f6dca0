#include "vmm/debug/debugger.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "vmm/debug/debugger_on_cpu.h"
#include "vmm/debug/monitor.h"
#include "vmm/debug/symbols.h"
#include "vmm/vm.h"

namespace vmm::debug {
namespace {

// A guest that resets has its next machine within this, or the host is in trouble.
constexpr std::chrono::seconds kMachineTimeout{15};

}  // namespace

Result<std::shared_ptr<Debugger>> Debugger::create(Options options) {
  auto bell = std::make_shared<StopBell>(VMM_TRY(EventFd::create()));
  return std::shared_ptr<Debugger>(new Debugger(std::move(options), std::move(bell)));
}

Debugger::Debugger(Options options, std::shared_ptr<StopBell> bell)
    : options_(std::move(options)),
      bell_(std::move(bell)),
      wait_(options_.wait),
      user_code_stops_(options_.user_code_stops) {}

Debugger::~Debugger() = default;

// ---- the Vm's side

void Debugger::attach_machine(RunControl& control, Facts facts) {
  const std::lock_guard lock(mutex_);
  control_ = &control;
  cpus_ = static_cast<unsigned>(control.vcpus().size());
  control.let_time_go_on(options_.time_goes_on);
  facts_ = std::move(facts);
  wishes_.clear();
  contexts_.clear();
  lifted_ = false;
  crash_.reset();
  if (std::exchange(wait_, false) || holding_) {
    holding_ = true;
    (void)control.hold();
  }
  // Memory is another one now: what can be found in it is planted there, the rest waits.
  for (const Breakpoints::Entry& old : breakpoints_.take_all()) {
    auto entry = place(0, old.point);
    if (entry) {
      breakpoints_.add(*std::move(entry));
    } else {
      options_.log(LogLevel::kWarning, "gdb", "the breakpoint at {:#x} is lost: {}",
                   old.point.address, entry.error().message());
    }
  }
  if (!breakpoints_.empty()) {
    const std::vector<ResumeAction> actions(control.vcpus().size(),
                                            {ResumeAction::Kind::kContinue});
    (void)guard_pages();
    (void)set_wishes(actions);
  }
  changed_.notify_all();
}

void Debugger::detach_machine() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return;
  over_.reset();
  history_ = {};
  leave_memory();
  reported_.with([](auto& events) { events.clear(); });
  control_->let_time_go_on(false);
  control_ = nullptr;
}

void Debugger::look() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return;
  if (!over_ && !lifted_) (void)planted_.renew(control_->machine().memory);
  if (!timed_ || holding_ || std::chrono::steady_clock::now() - last_checkpoint_ < every_) return;
  checkpoint_due_ = true;
  bell_->ring();
}

std::shared_ptr<StopBell> Debugger::note(StopEvent event) {
  if (options_.on_report) options_.on_report(event);
  reported_.with([&event](auto& events) {
    const bool known = std::any_of(events.begin(), events.end(),
                                   [&](const StopEvent& e) { return e.cpu == event.cpu; });
    if (!known) events.push_back(std::move(event));
  });
  return bell_;
}

// ---- the server's side

bool Debugger::await_step() noexcept {
  {
    const std::lock_guard lock(mutex_);
    const bool steps = std::any_of(asked_.begin(), asked_.end(), [](const ResumeAction& action) {
      return action.kind == ResumeAction::Kind::kStep;
    });
    if (!steps) return false;
  }
  return bell_->listen();
}

std::optional<StopEvent> Debugger::take_stop() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return std::nullopt;
  bell_->heard();
  // A guest that a debugger holds is its to look at; one that has stopped has something to tell.
  const bool due = std::exchange(checkpoint_due_, false) && !holding_ && !over_;
  if (!due && reported_.with([](auto& events) { return events.empty(); })) return std::nullopt;
  holding_ = true;
  (void)control_->hold();
  contexts_.clear();
  std::vector<StopEvent> events = reported_.with([](auto& all) { return std::exchange(all, {}); });
  if (events.empty()) {
    make_due_checkpoint();
    const auto gone_on = go_on(asked_);
    if (gone_on) return std::nullopt;
    return StopEvent{.note = gone_on.error().message()};
  }
  return judge(std::move(events));
}

void Debugger::report_crash(const StopInfo& stop) {
  {
    const std::lock_guard lock(mutex_);
    crash_ = stop;
    holding_ = true;
    contexts_.clear();
    if (control_ != nullptr) (void)control_->hold();
  }
  reported_.with([](auto& events) { events.clear(); });
  report({.kind = StopKind::kCrashed,
          .cpu = static_cast<unsigned>(stop.vcpu),
          .note = fmt::format("The guest cannot go on: {}{}{}", to_string(stop.reason),
                              stop.detail.empty() ? "" : ", ", stop.detail)});
}

void Debugger::give_up() {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
  changed_.notify_all();
}

std::unique_lock<std::mutex> Debugger::lock_machine() {
  std::unique_lock lock(mutex_);
  if (holding_) {
    changed_.wait_for(lock, kMachineTimeout, [this] { return control_ != nullptr || given_up_; });
  }
  return lock;
}

Result<RunControl*> Debugger::machine() const {
  if (control_ != nullptr) return control_;
  return fail(ErrorCode::kBadState, "The machine is being started");
}

unsigned Debugger::cpus() const {
  const std::lock_guard lock(mutex_);
  return cpus_;
}

Result<StopEvent> Debugger::interrupt() {
  holding_ = true;  // a machine that is being started is not to run away
  const auto lock = lock_machine();
  RunControl* const control = VMM_TRY(machine());
  VMM_TRY(control->hold());
  contexts_.clear();
  if (history_.search) {
    history_.past->tick = head().at.tick;
    history_.search.reset();
    reported_.with([](auto& events) { events.clear(); });
  }
  // One of those that were let go: the debugger may have kept the others.
  const auto first = std::find_if(asked_.begin(), asked_.end(), [](const ResumeAction& action) {
    return action.kind != ResumeAction::Kind::kStay;
  });
  StopEvent event;
  if (first != asked_.end()) event.cpu = static_cast<unsigned>(first - asked_.begin());
  if (crash_ && !history_.past) {
    event = {.kind = StopKind::kCrashed,
             .cpu = static_cast<unsigned>(crash_->vcpu),
             .note = fmt::format("The guest cannot go on: {}", to_string(crash_->reason))};
  }
  // A CPU that stopped at this very moment has the better reason, unless nobody wants to know it.
  const auto over = std::exchange(over_, std::nullopt);
  if (over) (void)planted_.renew(control->machine().memory);
  for (StopEvent& other : reported_.with([](auto& all) { return std::exchange(all, {}); })) {
    const bool own_step = over && other.kind == StopKind::kStep && other.cpu == *over;
    if (own_step || !matters(other)) continue;
    event = other.kind == StopKind::kTapeTrouble ? *on_tape_stop(other) : std::move(other);
    break;
  }
  return event;
}

Result<void> Debugger::check_steps(std::span<const ResumeAction> actions) {
  for (unsigned i = 0; i < actions.size(); ++i) {
    const auto kind = actions[i].kind;
    if (kind != ResumeAction::Kind::kStep && kind != ResumeAction::Kind::kStepRange) continue;
    if (VMM_TRY(user_code_stops())) return {};
    const auto system = on_cpu(i, [](kvm::VcpuFd& fd) { return fd.system_registers(); });
    if (VMM_TRY(system).cpl() == 3) {
      return fail(ErrorCode::kUnsupported, "CPU {} is in user code: {}", i, kNoUserCode);
    }
  }
  return {};
}

Result<void> Debugger::set_wishes(std::span<const ResumeAction> actions) {
  const auto& vcpus = VMM_TRY(machine())->vcpus();
  const std::vector<kvm::DebugSlot> slots = breakpoints_.slots();
  std::vector<CpuWish> known = std::exchange(wishes_, {});
  known.resize(vcpus.size());
  for (unsigned i = 0; i < vcpus.size(); ++i) {
    const ResumeAction action = i < actions.size() ? actions[i] : ResumeAction{};
    CpuWish wish{.attached = true,
                 .planted = !planted_.empty(),
                 .watched = !watched_.empty(),
                 .software_breakpoints = facts_.software_breakpoints && !planted_.empty(),
                 .slots = slots};
    if (over_) {
      // Neither in memory nor in registers: they are what is stepped over.
      wish.planted = wish.software_breakpoints = false;
      wish.slots.clear();
    }
    if (taped()) {
      wish.planted = wish.watched = wish.software_breakpoints = false;
      wish.slots.clear();
    }
    wish.step =
        action.kind == ResumeAction::Kind::kStep || action.kind == ResumeAction::Kind::kStepRange;
    wish.block_interrupts = facts_.block_interrupts;
    if (action.kind == ResumeAction::Kind::kStepRange) {
      wish.range_begin = action.begin;
      wish.range_end = action.end;
    }
    // One that was stopped within a step over a breakpoint forgets that with the next wish.
    if (known[i] == wish && !lifted_) continue;
    CpuDebug& debug = vcpus[i]->debug();
    VMM_TRY(on_cpu(i, [&debug, wish](kvm::VcpuFd& cpu) { return debug.set_wish(cpu, wish); }));
    known[i] = wish;
  }
  wishes_ = std::move(known);
  lifted_ = false;
  return {};
}

Result<void> Debugger::resume(std::span<const ResumeAction> actions) {
  const auto lock = lock_machine();
  VMM_TRY(machine());
  if (history_.past) {
    if (control_->paused()) return fail(ErrorCode::kBadState, "The guest is paused from elsewhere");
    return go_forward(actions.front());
  }
  if (crash_) {
    return fail(ErrorCode::kBadState, "The guest cannot go on ({}): detach or kill",
                to_string(crash_->reason));
  }
  VMM_TRY(check_steps(actions));
  asked_.assign(actions.begin(), actions.end());
  return go_on(actions);
}

std::string Debugger::waits_for() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr || history_.past) return {};
  if (!run_paused_ && !control_->paused()) return {};
  return "The guest is paused from elsewhere (vmm ctl SOCKET pause): it goes on when that ends.";
}

Result<void> Debugger::go_on(std::span<const ResumeAction> actions) {
  RunControl* const control = VMM_TRY(machine());
  contexts_.clear();
  (void)planted_.renew(control->machine().memory);
  VMM_TRY(guard_pages());
  if (history_.recording) {
    VMM_TRY(record_on());
  } else if (!history_.parts.empty()) {
    forget_history();  // it would not lead here
  }
  VMM_TRY(set_wishes(actions));
  let_cpus_judge(actions);
  std::vector<bool> runs;
  for (const ResumeAction& action : actions) {
    runs.push_back(action.kind != ResumeAction::Kind::kStay);
  }
  holding_ = false;
  return control->release(std::move(runs));
}

void Debugger::remove_all() {
  (void)breakpoints_.take_all();
  if (control_ != nullptr) leave_memory();
}

// The CPUs are at rest.
void Debugger::leave_memory() {
  Machine& machine = control_->machine();
  lifted_ = false;
  planted_.remove_all(machine.memory);
  watched_.set(machine.memory, {});
  (void)machine.ram_slots.guard({});
}

void Debugger::detach() {
  {
    const std::lock_guard lock(mutex_);
    holding_ = false;
    if (control_ != nullptr) {
      (void)control_->hold();
      end_step_over();
      if (history_.past) (void)leave_past(false);
      end_recording();
      forget_history();
      set_checkpoint_interval({});
      asked_.clear();
      wishes_.clear();
      judged_.with([](auto& judged) { judged.reset(); });
      remove_all();
      for (unsigned i = 0; i < control_->vcpus().size(); ++i) {
        CpuDebug& debug = control_->vcpus()[i]->debug();
        (void)on_cpu(i, [&debug](kvm::VcpuFd& cpu) { return debug.set_wish(cpu, {}); });
      }
      reported_.with([](auto& events) { events.clear(); });
      if (!crash_) (void)control_->release({});
    } else {
      remove_all();
    }
  }
  if (options_.on_detach) options_.on_detach();
}

// The guest stays stopped: its end comes from outside.
void Debugger::kill() {
  if (options_.on_kill) options_.on_kill();
}

// ---- what else is asked

std::optional<std::uint64_t> Debugger::kernel_offset() {
  return options_.symbols ? kernel_offset_of(*options_.symbols) : std::nullopt;
}

std::optional<std::uint64_t> Debugger::kernel_offset_of(const Symbols& symbols) {
  const std::lock_guard lock(mutex_);
  const auto state = state_locked(0);
  if (!state) return std::nullopt;
  return symbols.kernel_offset(*state, control_->machine().kernel_slide);
}

std::optional<Symbols::Segments> Debugger::kernel_segments() {
  return options_.symbols ? options_.symbols->segments() : std::nullopt;
}

// The guest's memory is its own in a snapshot: what was planted is not in it.
Result<std::shared_ptr<const Snapshot>> Debugger::snapshot_locked() {
  if (!facts_.snapshot) return fail(ErrorCode::kUnsupported, "This machine makes no snapshots");
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  planted_.lift(memory);
  auto made = facts_.snapshot();
  (void)planted_.renew(memory);
  return made;
}

Result<void> Debugger::reset_locked(const std::shared_ptr<const Snapshot>& snapshot) {
  if (!facts_.reset_to) return fail(ErrorCode::kUnsupported, "This machine cannot be set back");
  if (crash_) {
    return fail(ErrorCode::kBadState, "The guest is over ({}): it cannot be set back",
                to_string(crash_->reason));
  }
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  planted_.lift(memory);
  auto done = facts_.reset_to(snapshot);
  contexts_.clear();
  (void)planted_.renew(memory);
  forget_history();
  return done;
}

Debugger::Lifted::Lifted(Debugger& debugger) : lock_(debugger.mutex_), debugger_(debugger) {
  debugger_.contexts_.clear();  // who has the machine may put another state there
  if (debugger_.control_ != nullptr) {
    // Devices are in the present: so is what is saved of the guest.
    if (debugger_.history_.past) {
      (void)debugger_.leave_past(false);
      debugger_.report({.kind = StopKind::kHistoryEnd});
    }
    debugger_.planted_.lift(debugger_.control_->machine().memory);
  }
}

Debugger::Lifted::~Lifted() {
  if (debugger_.control_ != nullptr) {
    (void)debugger_.planted_.renew(debugger_.control_->machine().memory);
  }
}

Result<std::string> Debugger::monitor(unsigned cpu, std::string_view command) {
  const auto lock = lock_machine();
  contexts_.clear();  // commands may go back to another state
  RunControl* const control = VMM_TRY(machine());
  MonitorView view{.control = *control,
                   .cpu = cpu,
                   .state = [this](unsigned which) { return state_locked(which); },
                   .breakpoints = breakpoints_,
                   .stats = facts_.stats,
                   .symbols = options_.symbols.get(),
                   .crash = crash_ ? &*crash_ : nullptr,
                   .checkpoints = checkpoints_,
                   .snapshot = [this] { return checkpoint_locked(); },
                   .every = [this](auto interval) { set_checkpoint_interval(interval); },
                   .reset_to = [this](const auto& snapshot) { return reset_locked(snapshot); },
                   .record = [this](std::string_view what,
                                    std::size_t ticks) { return record_command(what, ticks); },
                   .may_nmi = [this]() -> Result<void> {
                     VMM_TRY(in_present());
                     if (!history_.recording) return {};
                     return fail(ErrorCode::kBadState, "An NMI cannot be recorded");
                   }};
  return run_monitor_command(view, command);
}

}  // namespace vmm::debug

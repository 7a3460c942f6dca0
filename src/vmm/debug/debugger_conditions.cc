// Conditions of breakpoints, judged here: a visit that does not matter costs two stops of this
// process, and no conversation with gdb.
#include <algorithm>
#include <utility>

#include "vmm/debug/debugger.h"
#include "vmm/run_control.h"

namespace vmm::debug {

Result<void> Debugger::set_conditions(const Breakpoint& point,
                                      std::vector<StopCondition> conditions) {
  const std::lock_guard lock(mutex_);
  if (!breakpoints_.set_conditions(point, std::move(conditions))) {
    return fail(ErrorCode::kBadConfig, "There is no breakpoint at {:#x}", point.address);
  }
  return {};
}

// Whether the debugger wants to be told. What cannot be judged matters.
bool Debugger::matters(const StopEvent& event) const {
  if (event.kind == StopKind::kStackGuarded || event.kind == StopKind::kTapeEnd) return false;
  if (event.kind != StopKind::kSoftwareBreakpoint && event.kind != StopKind::kHardwareBreakpoint) {
    return true;
  }
  std::vector<const Breakpoints::Entry*> here;
  for (const Breakpoints::Entry& entry : breakpoints_.entries()) {
    const bool code = entry.point.kind == BreakpointKind::kSoftware ||
                      entry.point.kind == BreakpointKind::kHardware;
    if (code && entry.point.address == event.address) here.push_back(&entry);
  }
  if (std::any_of(here.begin(), here.end(), [](const auto* e) { return e->conditions.empty(); })) {
    return true;
  }
  const auto state = state_locked(event.cpu);
  if (here.empty() || !state) return true;
  const ConditionContext context{
      *state, [this, cpu = event.cpu](std::uint64_t address, std::span<std::byte> bytes) {
        const auto read = read_locked(cpu, Space::kVirtual, address, bytes);
        return read && *read == bytes.size();
      }};
  return std::any_of(here.begin(), here.end(), [&](const auto* entry) {
    return std::any_of(entry->conditions.begin(), entry->conditions.end(),
                       [&](const StopCondition& condition) { return condition(context); });
  });
}

// The CPU executes the instruction that its breakpoint is at, while the others stand: none can run
// past a breakpoint that is not there meanwhile.
Result<void> Debugger::step_over(unsigned cpu) {
  RunControl* const control = VMM_TRY(machine());
  planted_.lift(control->machine().memory);
  over_ = cpu;
  std::vector<ResumeAction> actions(control->vcpus().size());
  actions[cpu].kind = ResumeAction::Kind::kStep;
  VMM_TRY(set_wishes(actions));
  std::vector<bool> runs(actions.size(), false);
  runs[cpu] = true;
  holding_ = false;
  return control->release(std::move(runs));
}

// The CPUs stand; the step may be done or not.
void Debugger::end_step_over() {
  if (over_ && control_ != nullptr) (void)planted_.renew(control_->machine().memory);
  over_.reset();
}

// After a step over a breakpoint: whether what was asked of the CPU is done with that.
bool Debugger::was_asked_step(unsigned cpu) const {
  if (cpu >= asked_.size()) return false;
  const ResumeAction& asked = asked_[cpu];
  if (asked.kind == ResumeAction::Kind::kStep) return true;
  if (asked.kind != ResumeAction::Kind::kStepRange) return false;
  const auto state = state_locked(cpu);
  return !state || state->general.rip < asked.begin || state->general.rip >= asked.end;
}

// What of the CPUs' reports is to be told. All stand; when nothing is told they run again.
std::optional<StopEvent> Debugger::judge(std::vector<StopEvent> events) {
  const auto failed = [](const Result<void>& result) -> std::optional<StopEvent> {
    if (result) return std::nullopt;
    return StopEvent{.note = result.error().message()};
  };
  if (events.empty()) return std::nullopt;
  if (history_.search) return on_played(events.front());
  const StopKind kind = events.front().kind;
  if (kind == StopKind::kTapeEnd || kind == StopKind::kTapeTrouble) {
    return on_tape_stop(events.front());
  }
  if (const auto over = over_) {
    end_step_over();
    const auto step = std::find_if(events.begin(), events.end(), [&](const StopEvent& event) {
      return event.kind == StopKind::kStep && event.cpu == *over;
    });
    if (step != events.end()) {
      if (was_asked_step(*over)) return *step;
      events.erase(step);
      if (events.empty()) return failed(go_on(asked_));
    }
  }
  if (events.empty()) return std::nullopt;
  // Another CPU may have stopped meanwhile. One that stands on a breakpoint meets it again when it
  // goes on; so only the first is told.
  for (StopEvent& event : events) {
    if (matters(event)) return std::move(event);
  }
  const StopEvent& first = events.front();
  if (first.kind == StopKind::kStackGuarded) return on_guarded_stack(first);
  return failed(step_over(first.cpu));
}

}  // namespace vmm::debug

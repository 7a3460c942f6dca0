// Conditions of breakpoints, judged here: a visit that does not matter costs two stops of this
// process, and no conversation with gdb.
#include <algorithm>
#include <utility>

#include "vmm/debug/debugger.h"
#include "vmm/run_control.h"

namespace vmm::debug {
namespace {

// Of code, those at this linear address.
std::vector<const Breakpoints::Entry*> entries_at(const std::vector<Breakpoints::Entry>& entries,
                                                  std::uint64_t address) {
  std::vector<const Breakpoints::Entry*> here;
  for (const Breakpoints::Entry& entry : entries) {
    const bool code = entry.point.kind == BreakpointKind::kSoftware ||
                      entry.point.kind == BreakpointKind::kHardware;
    if (code && entry.point.address == address) here.push_back(&entry);
  }
  return here;
}

bool any_holds(const std::vector<const Breakpoints::Entry*>& entries,
               const ConditionContext& context) {
  return std::any_of(entries.begin(), entries.end(), [&](const auto* entry) {
    return std::any_of(entry->conditions.begin(), entry->conditions.end(),
                       [&](const StopCondition& condition) { return condition(context); });
  });
}

}  // namespace

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
  const auto here = entries_at(breakpoints_.entries(), event.address);
  if (std::any_of(here.begin(), here.end(), [](const auto* e) { return e->conditions.empty(); })) {
    return true;
  }
  const auto state = state_locked(event.cpu);
  if (here.empty() || !state) return true;
  const ConditionContext context{
      .state = *state,
      .read_memory = [this, cpu = event.cpu](std::uint64_t address, std::span<std::byte> bytes) {
        const auto read = read_locked(cpu, Space::kVirtual, address, bytes);
        return read && *read == bytes.size();
      }};
  return any_holds(here, context);
}

// What the vCPUs' threads may look at: a copy, as the list is the debugger's.
void Debugger::let_cpus_judge(std::span<const ResumeAction> actions) {
  const auto& entries = breakpoints_.entries();
  const bool any = std::any_of(entries.begin(), entries.end(),
                               [](const auto& entry) { return !entry.conditions.empty(); });
  std::shared_ptr<const Judged> judged;
  // What is recorded goes from stop to stop, and no CPU steps by itself.
  if (any && !history_.recording) {
    const auto running = std::count_if(actions.begin(), actions.end(), [](const auto& action) {
      return action.kind != ResumeAction::Kind::kStay;
    });
    judged = std::make_shared<const Judged>(Judged{entries, running == 1});
  }
  judged_.with([&judged](auto& now) { now.swap(judged); });
}

// On the vCPU's thread. What a debug register holds is this CPU's own affair; INT3 is taken away
// only if no other CPU could run past it.
bool Debugger::passes(const kvm::VcpuFd& cpu, const GuestMemory& memory, std::uint64_t address) {
  const auto judged = judged_.with([](const auto& now) { return now; });
  if (!judged) return false;
  const auto here = entries_at(judged->entries, address);
  const bool planted =
      std::any_of(here.begin(), here.end(), [](const auto* e) { return e->planted.has_value(); });
  if (here.empty() || (planted && !judged->alone) ||
      std::any_of(here.begin(), here.end(), [](const auto* e) { return e->conditions.empty(); })) {
    return false;
  }
  auto general = cpu.registers();
  auto system = cpu.system_registers();
  if (!general || !system) return false;
  const std::optional<PagingContext> paging = all_seeing(*system, general->rflags);
  const CpuState state{.general = *general, .system = *system};
  const ConditionContext context{.state = state,
                                 .read_memory =
                                     [&](std::uint64_t at, std::span<std::byte> to) {
                                       return read_pages(memory, paging, at, to) == to.size();
                                     },
                                 .whole = false};
  if (any_holds(here, context)) return false;
  if (planted) {
    lifted_ = true;
    planted_.lift(memory);
  }
  return true;
}

void Debugger::stepped_over(const GuestMemory& memory) {
  if (!lifted_.exchange(false)) return;
  (void)planted_.renew(memory);
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
  return !state || state->linear_pc() < asked.begin || state->linear_pc() >= asked.end;
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

#include "vmm/until_loop.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "memory/page_walk.h"
#include "vmm/debug/debugger.h"
#include "vmm/debug/symbols.h"
#include "vmm/run_watch.h"
#include "vmm/vm.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

using debug::Breakpoint;
using debug::BreakpointKind;
using debug::ResumeAction;
using debug::Space;
using std::chrono::steady_clock;

// Calls a function at its end.
class Finally {
 public:
  explicit Finally(std::function<void()> fn) : fn_(std::move(fn)) {}
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;
  ~Finally() { fn_(); }

 private:
  const std::function<void()> fn_;
};

class TimeLeft {
 public:
  // A deadline beyond what the clock can count is as far away as can be.
  explicit TimeLeft(std::chrono::nanoseconds whole)
      : end_(steady_clock::now() + std::clamp(whole, std::chrono::nanoseconds(0), kFarAway)) {}

  std::chrono::nanoseconds get() const {
    return std::max(std::chrono::nanoseconds(0), end_ - steady_clock::now());
  }

 private:
  static constexpr std::chrono::nanoseconds kFarAway = std::chrono::hours(24 * 365 * 99);
  const steady_clock::time_point end_;
};

std::uint64_t linear_pc(const debug::CpuState& state) {
  const std::uint64_t rip = state.general.rip;
  return state.system.code_is_64bit() ? rip : (state.system.cs.base + rip) & 0xffffffff;
}

// An address that a CPU is to come to.
struct Place {
  std::size_t condition;
  Space space;
  std::uint64_t address;

  bool is_at(const debug::CpuState& state, const GuestMemory& memory) const {
    const std::uint64_t pc = linear_pc(state);
    if (space == Space::kVirtual) return pc == address;
    PagingContext context = x86::paging_context(state.system, state.general.rflags);
    context.cpl = 0;
    const PageWalk walk = walk_pages(memory, context, Gva(pc), AccessKind::kRead);
    return walk.mapped() && walk.gpa.value == address;
  }
};

// One run_until(), or one step.
class Loop {
 public:
  Loop(const UntilHost& host, RunWatch& watch, TimeLeft left)
      : host_(host), watch_(watch), left_(left) {}

  // Addresses: the debugger of this run, which goes with the loop. Errors: kBadState, there is one.
  Result<void> attach() {
    debugger_ = VMM_TRY(debug::Debugger::create(
        {.on_report = [this](const debug::StopEvent& event) { watch_.on_stop(event); }}));
    VMM_TRY(host_.attach(debugger_));
    attached_.emplace([this] {
      debugger_->detach();  // breakpoints and steps are taken back
      host_.detach();
    });
    return {};
  }

  Result<std::vector<Place>> places(const std::vector<Condition>& conditions) const;
  Result<std::optional<StopInfo>> leave(const std::vector<Place>& places);
  Result<void> arm(const std::vector<Place>& places);
  Result<StopInfo> step_one(unsigned cpu);
  Result<StopInfo> run_watching(const std::vector<Condition>& conditions,
                                std::optional<std::size_t>& met);
  Result<std::optional<std::size_t>> place_of(const debug::StopEvent& event,
                                              const std::vector<Place>& places) const;

 private:
  std::optional<std::size_t> ask(const std::vector<Condition>& conditions) const;

  const UntilHost& host_;
  RunWatch& watch_;
  const TimeLeft left_;
  std::shared_ptr<debug::Debugger> debugger_;
  std::optional<Finally> attached_;
};

Result<std::vector<Place>> Loop::places(const std::vector<Condition>& conditions) const {
  std::vector<Place> places;
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    if (const auto* gva = std::get_if<UntilAddress>(&conditions[i])) {
      places.push_back({i, Space::kVirtual, gva->address.value});
    } else if (const auto* gpa = std::get_if<UntilPhysicalAddress>(&conditions[i])) {
      places.push_back({i, Space::kPhysical, gpa->address.value});
    } else if (const auto* symbol = std::get_if<UntilSymbol>(&conditions[i])) {
      const auto address = symbol->symbols ? symbol->symbols->find(symbol->name) : std::nullopt;
      if (!address) {
        return fail(ErrorCode::kBadConfig, "Wait for condition {}: there is no symbol '{}'", i,
                    symbol->name);
      }
      const std::uint64_t offset = debugger_->kernel_offset_of(*symbol->symbols).value_or(0);
      places.push_back({i, Space::kVirtual, *address + offset});
    }
  }
  return places;
}

Result<StopInfo> Loop::step_one(unsigned cpu) {
  if (cpu >= debugger_->cpus()) {
    return fail(ErrorCode::kOutOfRange, "There is no vCPU {}: this machine has {}", cpu,
                debugger_->cpus());
  }
  std::vector<ResumeAction> actions(debugger_->cpus());
  actions[cpu].kind = ResumeAction::Kind::kStep;
  VMM_TRY(debugger_->resume(actions));
  return host_.run({.deadline = left_.get()});
}

// CPUs that stand at one of the places go on first: they are waited for when they come back. What
// ended the guest meanwhile.
Result<std::optional<StopInfo>> Loop::leave(const std::vector<Place>& places) {
  for (unsigned cpu = 0; cpu < debugger_->cpus(); ++cpu) {
    const debug::CpuState state = VMM_TRY(debugger_->state(cpu));
    const bool stands = std::any_of(places.begin(), places.end(), [&](const Place& place) {
      return place.is_at(state, host_.machine.memory);
    });
    if (!stands) continue;
    StopInfo stop = VMM_TRY(step_one(cpu));
    if (!watch_.take_event()) return std::optional(std::move(stop));
  }
  return std::optional<StopInfo>();
}

Result<void> Loop::arm(const std::vector<Place>& places) {
  for (const Place& place : places) {
    if (place.space == Space::kPhysical) {
      VMM_TRY(debugger_->insert(
          0, {.kind = BreakpointKind::kSoftware, .address = place.address, .space = place.space}));
      continue;
    }
    const auto in_register =
        debugger_->insert(0, {.kind = BreakpointKind::kHardware, .address = place.address});
    if (!in_register) {
      // More addresses than registers: INT3 in memory will do, where something is mapped.
      const auto planted =
          debugger_->insert(0, {.kind = BreakpointKind::kSoftware, .address = place.address});
      if (!planted) return in_register;
    }
  }
  const std::vector<ResumeAction> all(debugger_->cpus(), {ResumeAction::Kind::kContinue});
  return debugger_->resume(all);
}

std::optional<std::size_t> Loop::ask(const std::vector<Condition>& conditions) const {
  host_.between = true;
  const Finally again([this] { host_.between = false; });
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    const auto* own = std::get_if<UntilTrue>(&conditions[i]);
    if (own != nullptr && own->predicate()) return i;
  }
  return std::nullopt;
}

Result<StopInfo> Loop::run_watching(const std::vector<Condition>& conditions,
                                    std::optional<std::size_t>& met) {
  std::optional<std::chrono::nanoseconds> slice;
  for (const Condition& condition : conditions) {
    const auto* own = std::get_if<UntilTrue>(&condition);
    if (own == nullptr) continue;
    slice = std::min<std::chrono::nanoseconds>(slice.value_or(own->interval), own->interval);
  }
  const auto found = [&] {
    if (slice) met = ask(conditions);
    return met.has_value();
  };
  if (found()) return StopInfo{.reason = StopReason::kCondition};
  for (;;) {
    const std::chrono::nanoseconds left = left_.get();
    StopInfo stop = VMM_TRY(host_.run({.deadline = slice ? std::min(*slice, left) : left}));
    if (stop.reason == StopReason::kCondition) return stop;
    if (found()) {
      if (stop.reason == StopReason::kDeadline) stop = {.reason = StopReason::kCondition};
      return stop;
    }
    if (stop.reason != StopReason::kDeadline || left_.get() == std::chrono::nanoseconds(0)) {
      return stop;
    }
  }
}

Result<std::optional<std::size_t>> Loop::place_of(const debug::StopEvent& event,
                                                  const std::vector<Place>& places) const {
  const debug::CpuState state = VMM_TRY(debugger_->state(event.cpu));
  for (const Place& place : places) {
    if (place.is_at(state, host_.machine.memory)) return std::optional(place.condition);
  }
  return std::optional<std::size_t>();
}

bool waits_for_address(const Condition& condition) {
  return std::holds_alternative<UntilAddress>(condition) ||
         std::holds_alternative<UntilPhysicalAddress>(condition) ||
         std::holds_alternative<UntilSymbol>(condition);
}

Result<void> run_loop(const UntilHost& host, const std::vector<Condition>& conditions,
                      const TimeLeft& left, RunWatch& watch, UntilResult& result) {
  Loop loop(host, watch, left);
  std::vector<Place> places;
  if (std::any_of(conditions.begin(), conditions.end(), waits_for_address)) {
    VMM_TRY(loop.attach());
    places = VMM_TRY(loop.places(conditions));
    if (auto ended = VMM_TRY(loop.leave(places))) {
      result.met = watch.met();
      result.stop = *std::move(ended);
      return {};
    }
    VMM_TRY(loop.arm(places));
  }
  result.stop = VMM_TRY(loop.run_watching(conditions, result.met));
  if (const auto event = watch.take_event()) {
    result.met = VMM_TRY(loop.place_of(*event, places));
  } else if (const auto met = watch.met()) {
    result.met = met;
  }
  return {};
}

}  // namespace

Result<UntilResult> run_until(const UntilHost& host, const std::vector<Condition>& conditions,
                              std::chrono::nanoseconds deadline) {
  const TimeLeft left(deadline);
  const std::unique_ptr<RunWatch> watch = VMM_TRY(RunWatch::create(host.machine.stops, conditions));
  const auto let_watch = [&host](RunWatch* who) {
    for (const auto& dispatch : host.dispatches) dispatch->set_watch(who);
    host.machine.com1->with([&](Uart16550&) { host.machine.console.set_tap(who); });
  };
  let_watch(watch.get());
  const Finally unwatch([&] { let_watch(nullptr); });
  UntilResult result;
  VMM_TRY(run_loop(host, conditions, left, *watch, result));
  result.console = watch->console();
  return result;
}

Result<StopInfo> step(const UntilHost& host, VcpuId vcpu, std::chrono::nanoseconds deadline) {
  const std::unique_ptr<RunWatch> watch = VMM_TRY(RunWatch::create(host.machine.stops, {}));
  Loop loop(host, *watch, TimeLeft(deadline));
  VMM_TRY(loop.attach());
  return loop.step_one(static_cast<unsigned>(vcpu));
}

}  // namespace vmm

// Going back in time: the guest is recorded from a checkpoint on, and a moment of its past is
// reached by putting CPU and memory back to the checkpoint before it, and playing what was recorded
// up to there. Devices stay in the present meanwhile: what the guest reads of them is on the tape,
// and what it writes to them has been written.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/join.h"
#include "vmm/debug/debugger_on_cpu.h"
#include "vmm/debug/kvm_memory_msrs.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm::debug {
namespace {

bool is_code(const Breakpoint& point) {
  return point.kind == BreakpointKind::kSoftware || point.kind == BreakpointKind::kHardware;
}

StopKind stop_kind(const Breakpoint& point) {
  return point.kind == BreakpointKind::kSoftware ? StopKind::kSoftwareBreakpoint
                                                 : StopKind::kHardwareBreakpoint;
}

}  // namespace

// ---- checkpoints

Result<std::shared_ptr<const Snapshot>> Debugger::checkpoint_locked() {
  VMM_TRY(in_present());
  auto made = VMM_TRY(snapshot_locked());
  if (history_.recording) begin_part(made);
  return made;
}

void Debugger::set_checkpoint_interval(std::chrono::milliseconds every) {
  every_ = every;
  timed_ = every > std::chrono::milliseconds(0);
  last_checkpoint_ = std::chrono::steady_clock::now();
  checkpoint_due_ = false;
}

// The CPUs stand. One that cannot be made is the last: the next one could not be, either.
void Debugger::make_due_checkpoint() {
  const auto state = state_locked(0);
  auto made = checkpoint_locked();
  if (!state || !made) {
    options_.log(LogLevel::kWarning, "gdb", "no more timed checkpoints: {}",
                 made ? state.error().message() : made.error().message());
    return set_checkpoint_interval({});
  }
  (void)checkpoints_.add({}, *std::move(made), state->linear_pc());
  last_checkpoint_ = std::chrono::steady_clock::now();
}

// ---- recording

// What a guest must not have so that all it is given from outside goes through this process, and
// comes at a moment that is known.
Result<void> Debugger::check_recordable() {
  Machine& machine = VMM_TRY(this->machine())->machine();
  const std::size_t cpus = control_->vcpus().size();
  if (cpus != 1) {
    return fail(ErrorCode::kUnsupported,
                "The guest cannot be recorded: it has {} CPUs, and in which order they reach "
                "memory is not known (--cpus 1)",
                cpus);
  }
  if (machine.user_irqchip == nullptr) {
    return fail(ErrorCode::kUnsupported,
                "The guest cannot be recorded: its interrupts come from KVM, and at which "
                "instruction is not known (--irqchip user)");
  }
  std::vector<std::string> writers;
  machine.roster.with([&writers](const Roster& roster) {
    for (const VirtioHandle& handle : roster.virtio) writers.emplace_back(handle.outside.id());
  });
  if (!machine.hypercalls.empty()) writers.emplace_back("hypercalls of the program");
  if (!writers.empty()) {
    return fail(ErrorCode::kUnsupported,
                "The guest cannot be recorded: what writes to its memory beside the CPU is not "
                "seen ({})",
                join(writers, ", "));
  }
  if (!facts_.put_back) return fail(ErrorCode::kUnsupported, "This machine cannot be put back");
  return on_cpu(0, [](kvm::VcpuFd& cpu) -> Result<void> {
    for (const std::uint32_t index : kKvmMemoryMsrs) {
      const auto value = cpu.msr(index);
      if (!value || !makes_kvm_write(index, *value)) continue;
      return fail(ErrorCode::kUnsupported, "The guest cannot be recorded: {}", kKvmWrites);
    }
    return {};
  });
}

TapeHead& Debugger::head() const { return control_->vcpus().front()->debug().tape(); }

Result<void> Debugger::set_tape(TapeHead head) {
  contexts_.clear();
  CpuDebug& debug = VMM_TRY(machine())->vcpus().front()->debug();
  const bool share = head.active() && control_->machine().system->capabilities().sync_registers;
  return on_cpu(0, [&debug, share, head = std::move(head)](kvm::VcpuFd& cpu) {
    cpu.share_system_registers(share);
    debug.tape() = head;
    return debug.run_to(cpu, {});
  });
}

// Where a CPU that goes step by step stops.
void Debugger::set_stops(TapeHead& head) {
  head.code.clear();
  head.data = watched_.empty() ? nullptr : &watched_;
  if (over_) return;
  for (const Breakpoints::Entry& entry : breakpoints_.entries()) {
    if (is_code(entry.point)) head.code.emplace_back(entry.point.address, stop_kind(entry.point));
  }
}

// The ways to stop a CPU are others now.
void Debugger::place_anew() {
  leave_memory();
  for (const Breakpoints::Entry& old : breakpoints_.take_all()) {
    auto entry = place(0, old.point);
    if (entry) {
      entry->conditions = old.conditions;
      breakpoints_.add(*std::move(entry));
    } else {
      options_.log(LogLevel::kWarning, "gdb", "the breakpoint at {:#x} is lost: {}",
                   old.point.address, entry.error().message());
    }
  }
}

Result<void> Debugger::begin_recording(std::size_t ticks) {
  VMM_TRY(in_present());
  if (crash_)
    return fail(ErrorCode::kBadState, "The guest is over: nothing more is to be recorded");
  VMM_TRY(check_recordable());
  history_.ticks = ticks;
  if (history_.recording) return {};
  forget_history();
  history_.recording = true;
  place_anew();
  auto begun = snapshot_locked();
  if (!begun) {
    end_recording();
    return tl::unexpected<Error>(std::move(begun).error());
  }
  begin_part(*std::move(begun));
  return {};
}

// What was recorded stays, as long as the guest does not go on.
void Debugger::end_recording() {
  if (!std::exchange(history_.recording, false)) return;
  (void)set_tape({});
  place_anew();
}

void Debugger::forget_history() {
  const bool recording = history_.recording;
  const std::size_t ticks = history_.ticks;
  history_ = {};
  history_.recording = recording;
  history_.ticks = ticks;
  if (control_ != nullptr) (void)set_tape({});
}

// The machine is as in `start` now.
void Debugger::begin_part(std::shared_ptr<const Snapshot> start) {
  auto& parts = history_.parts;
  if (!parts.empty() && parts.back().tape->ticks() == 0) parts.pop_back();
  if (!parts.empty()) parts.back().gap = parts.back().gap || std::exchange(history_.changed, false);
  history_.changed = false;
  parts.push_back({.start = std::move(start), .tape = std::make_shared<Tape>()});
  std::uint64_t memory = 0;
  for (const History::Part& part : parts) memory += part.start->stored_bytes();
  while (parts.size() > 2 &&
         (parts.size() > History::kMostParts || memory > History::kMostMemory)) {
    memory -= parts.front().start->stored_bytes();
    parts.pop_front();
  }
}

// Before the guest goes on, which is to be recorded.
Result<void> Debugger::record_on() {
  const auto& parts = history_.parts;
  if (parts.empty() || history_.changed || parts.back().tape->ticks() >= history_.ticks ||
      parts.back().tape->full()) {
    auto checked = check_recordable();
    if (checked) {
      auto start = snapshot_locked();
      if (start) {
        begin_part(*std::move(start));
      } else {
        checked = tl::unexpected<Error>(std::move(start).error());
      }
    }
    if (!checked) {
      end_recording();
      return checked;
    }
  }
  TapeHead next{.mode = TapeHead::Mode::kRecord,
                .tape = parts.back().tape,
                .longest = std::min(history_.ticks, Tape::kMostTicks),
                .delivering = head().delivering,
                .in_instruction = head().in_instruction,
                .sees_user_code = VMM_TRY(user_code_stops())};
  set_stops(next);
  return set_tape(std::move(next));
}

// The CPU has stopped because of its tape.
std::optional<StopEvent> Debugger::on_tape_stop(const StopEvent& event) {
  if (event.kind == StopKind::kTapeEnd) {
    const auto gone_on = go_on(asked_);
    if (gone_on) return std::nullopt;
    return StopEvent{.note = gone_on.error().message()};
  }
  const std::string why = head().trouble;
  if (!history_.parts.empty()) {
    history_.parts.back().gap = true;
    history_.parts.back().one_more = head().behind_trouble;
  }
  end_recording();
  return StopEvent{
      .cpu = event.cpu,
      .note = fmt::format("Recording has ended here: {}. Until the guest goes on, what "
                          "was recorded can be gone back to.",
                          why)};
}

// ---- going there

Moment Debugger::here() const { return history_.past ? *history_.past : history_.end(); }

Result<void> Debugger::in_present() const {
  if (!history_.past) return {};
  return fail(ErrorCode::kBadState,
              "The guest is in its past, which cannot be changed: \"continue\" to the present, or "
              "\"monitor record off\"");
}

Result<void> Debugger::enter_past() {
  const Moment now = history_.end();
  auto machine = VMM_TRY(snapshot_locked());
  history_.present = {.machine = std::move(machine), .delivering = head().delivering};
  history_.past = now;
  if (!history_.recording) place_anew();
  return {};
}

// `compare`: the guest has come there by what was recorded, and is not to be another one.
Result<void> Debugger::leave_past(bool compare) {
  history_.search.reset();
  const History::Present present = std::exchange(history_.present, {});
  history_.past.reset();
  auto done = facts_.put_back(present.machine, compare);
  (void)set_tape({.delivering = present.delivering});
  if (!history_.recording) place_anew();
  return done;
}

// To the beginning of a part.
Result<void> Debugger::start_of(std::size_t part, bool compare) {
  auto done = facts_.put_back(history_.parts[part].start, compare);
  history_.past = Moment{part, 0};
  VMM_TRY(set_tape({.mode = TapeHead::Mode::kPlay, .tape = history_.parts[part].tape}));
  return done;
}

// The part that the guest is in, up to behind so many of its ticks.
Result<void> Debugger::play_to(std::size_t tick) {
  const History::Search& search = *history_.search;
  TapeHead next = head();
  tick = std::min(tick, next.tape->ticks());
  next.until = tick;
  VMM_TRY(guard_pages());  // watched data is as it is now
  set_stops(next);
  if (search.goal == History::Search::Goal::kMoment) {
    next.code.clear();
    next.data = nullptr;
  }
  if (next.at.tick >= tick) {
    report({.kind = StopKind::kTapeEnd});
    return {};
  }
  VMM_TRY(set_tape(std::move(next)));
  VMM_TRY(set_wishes(std::vector<ResumeAction>{search.action}));
  return control_->play();
}

Result<void> Debugger::go_to(Moment moment, StopEvent told) {
  history_.search = {.goal = History::Search::Goal::kMoment, .to = moment, .told = std::move(told)};
  const bool ahead =
      head().plays() && history_.past->part == moment.part && *history_.past <= moment;
  if (!ahead) VMM_TRY(start_of(moment.part, false));
  return play_to(moment.tick);
}

// Looks for the last breakpoint or watchpoint that was met before a moment.
Result<void> Debugger::look_back(Moment before) {
  while (before.tick == 0) {
    if (before.part == 0) return go_to(before, {.kind = StopKind::kHistoryBegin});
    --before.part;
    before.tick = history_.parts[before.part].tape->ticks();
  }
  history_.search = {.goal = History::Search::Goal::kLastHit, .to = before};
  VMM_TRY(start_of(before.part, false));
  const std::uint64_t pc = VMM_TRY(state_locked(0)).linear_pc();
  for (const Breakpoints::Entry& entry : breakpoints_.entries()) {
    if (!is_code(entry.point) || entry.point.address != pc) continue;
    note_hit({.kind = stop_kind(entry.point), .address = pc});
  }
  return play_to(before.tick);
}

// A watchpoint is met by the tick that has changed the data, going back in front of it.
void Debugger::note_hit(const StopEvent& event) {
  if (!matters(event)) return;
  Moment moment = *history_.past;
  if (event.kind == StopKind::kWriteWatch) {
    --moment.tick;
  } else if (moment >= history_.search->to) {
    return;
  }
  history_.search->hit = {moment, event};
}

Result<void> Debugger::resume_back(ResumeAction::Kind kind) {
  const std::lock_guard lock(mutex_);
  VMM_TRY(machine());
  if (history_.parts.empty()) {
    VMM_TRY(check_recordable());
    return fail(ErrorCode::kBadState,
                "Nothing is recorded that could be gone back to: \"monitor record on\", and then "
                "let the guest go on");
  }
  if (control_->paused()) return fail(ErrorCode::kBadState, "The guest is paused from elsewhere");
  Moment now = here();
  if (!history_.past) {
    if (history_.parts.back().one_more) ++now.tick;
    VMM_TRY(enter_past());
  }
  holding_ = true;
  if (kind != ResumeAction::Kind::kStep) return look_back(now);
  Moment before = now;
  while (before.tick == 0) {
    if (before.part == 0) return go_to(before, {.kind = StopKind::kHistoryBegin});
    --before.part;
    before.tick = history_.parts[before.part].tape->ticks();
  }
  --before.tick;
  return go_to(before, {.kind = StopKind::kStep});
}

Result<void> Debugger::go_forward(const ResumeAction& action) {
  history_.search = {.goal = History::Search::Goal::kForward, .action = action};
  return play_to(history_.parts[history_.past->part].tape->ticks());
}

// What was played has come to an end, or to a stop; what is to be told, or nothing and it goes on.
Result<std::optional<StopEvent>> Debugger::after_played(const StopEvent& event) {
  using Goal = History::Search::Goal;
  const History::Search search = *history_.search;
  const bool at_end = event.kind == StopKind::kTapeEnd;
  if (search.goal == Goal::kMoment) {
    history_.search.reset();
    return std::optional(search.told);
  }
  if (search.goal == Goal::kLastHit) {
    if (!at_end) note_hit(event);
    if (!at_end && *history_.past < search.to) {
      VMM_TRY(play_to(search.to.tick));
    } else if (const auto hit = history_.search->hit) {
      VMM_TRY(go_to(hit->moment, hit->event));
    } else {
      VMM_TRY(look_back({search.to.part, 0}));
    }
    return std::optional<StopEvent>();
  }
  const History::Part& part = history_.parts[history_.past->part];
  if (!at_end && matters(event)) {
    history_.search.reset();
    return std::optional(event);
  }
  if (!at_end) {
    VMM_TRY(play_to(part.tape->ticks()));
    return std::optional<StopEvent>();
  }
  // A tape that ends within an instruction leads nowhere that could be compared.
  const bool compare = !part.gap && part.tape->ends_clean();
  const std::size_t next = history_.past->part + 1;
  if (next == history_.parts.size()) {
    const auto left = leave_past(compare);
    return std::optional(StopEvent{.kind = StopKind::kHistoryEnd,
                                   .note = left ? std::string() : left.error().message()});
  }
  VMM_TRY(start_of(next, compare));
  VMM_TRY(play_to(history_.parts[next].tape->ticks()));
  return std::optional<StopEvent>();
}

std::optional<StopEvent> Debugger::on_played(const StopEvent& event) {
  history_.past->tick = head().at.tick;
  std::string trouble = head().trouble;
  if (event.kind != StopKind::kTapeTrouble) {
    auto told = after_played(event);
    if (told) return *std::move(told);
    trouble = told.error().message();
  }
  // A state that was never there is not to be taken for one.
  const auto left = leave_past(false);
  forget_history();
  end_recording();
  return StopEvent{.note = fmt::format("What was recorded does not lead to what was: {}. The guest "
                                       "is back in the present, and nothing is recorded any "
                                       "more.{}",
                                       trouble, left ? "" : " " + left.error().message())};
}

// ---- the user's commands

Result<std::string> Debugger::record_command(std::string_view what, std::size_t ticks) {
  if (what == "on") {
    VMM_TRY(begin_recording(ticks == 0 ? History::kTicks : ticks));
    return fmt::format(
        "The guest is recorded from here on, step by step: reverse-stepi, reverse-continue. There "
        "is a checkpoint every {} steps.\n",
        history_.ticks);
  }
  if (what == "off") {
    if (history_.past) VMM_TRY(leave_past(false));
    end_recording();
    forget_history();
    return std::string("Nothing is recorded any more, and what was is forgotten.\n");
  }
  if (!what.empty()) return fail(ErrorCode::kBadConfig, "record [on [STEPS]|off]");
  if (history_.parts.empty()) {
    VMM_TRY(check_recordable());
    return std::string(history_.recording ? "The guest is recorded when it goes on.\n"
                                          : "Nothing is recorded; it could be.\n");
  }
  std::size_t all = 0, back = 0;
  const Moment now = here();
  for (std::size_t i = 0; i < history_.parts.size(); ++i) {
    const std::size_t ticks_of_part = history_.parts[i].tape->ticks();
    all += ticks_of_part;
    back += i < now.part ? ticks_of_part : i == now.part ? now.tick : 0;
  }
  return fmt::format("{} steps behind {} checkpoints are recorded; the guest is {}.\n", all,
                     history_.parts.size(),
                     history_.past ? fmt::format("at step {} of them", back) : "in the present");
}

}  // namespace vmm::debug

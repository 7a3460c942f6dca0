// The Target that is real: the running machine of a Vm (Vm::attach_debugger()).
//
// It outlives machines: when the guest resets, the next machine gets the breakpoints of the last.
// Three kinds of threads meet here: the one that debugs (a Server's), which may call everything;
// the one that runs the Vm; and vCPUs, which report stops and ask for planted bytes, and never
// wait.
//
// What this host cannot do is refused with a reason (docs/debugging.md).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/locked.h"
#include "base/log.h"
#include "memory/page_walk.h"
#include "vmm/debug/breakpoints.h"
#include "vmm/debug/checkpoints.h"
#include "vmm/debug/cpu_debug.h"
#include "vmm/debug/history.h"
#include "vmm/debug/stop_bell.h"
#include "vmm/debug/target.h"
#include "vmm/stop_reason.h"

namespace vmm {
class RunControl;
class Snapshot;
struct VmStats;
}  // namespace vmm

namespace vmm::debug {

class Symbols;

// What cannot be honoured on a host whose KVM interprets the kernel.
inline constexpr std::string_view kNoUserCode =
    "this host runs user code (CPL 3) natively and does not stop it: breakpoints and steps work in "
    "kernel code only";

// How a debugger sees memory: as the most privileged code, and what it may not execute, too.
PagingContext all_seeing(const x86::SystemRegisters& system, std::uint64_t rflags);

class Debugger final : public Target {
 public:
  struct Options {
    bool wait = false;                     // the first machine stands before its first instruction
    std::function<void()> on_kill = {};    // the debugger wants the guest's end; on its thread
    std::function<void()> on_detach = {};  // it lets go; on its thread
    // A CPU has stopped on its own account: on that CPU's thread, beside stop_fd().
    std::function<void(const StopEvent&)> on_report = {};
    std::shared_ptr<const Symbols> symbols = {};
    bool time_goes_on = false;  // the guest's, while it is held
    // Whether KVM stops code at CPL 3: instead of finding that out, for one that is not the host's.
    std::optional<bool> user_code_stops = {};
    Log log = {};
  };
  // What a machine can be asked for.
  struct Facts {
    std::size_t slots = CpuDebug::kSlots;  // debug registers that no quirk needs
    bool block_interrupts = false;         // KVM_GUESTDBG_BLOCKIRQ
    bool software_breakpoints = false;     // KVM_GUESTDBG_USE_SW_BP
    std::function<VmStats()> stats = {};
    // The machine as it stands, and back to that; while it is held.
    std::function<Result<std::shared_ptr<const Snapshot>>()> snapshot = {};
    std::function<Result<void>(const std::shared_ptr<const Snapshot>&)> reset_to = {};
    // Back to that as well, CPU and memory only. With `compare`: kBadState naming what differed,
    // when they were not like that already; they are then.
    std::function<Result<void>(const std::shared_ptr<const Snapshot>&, bool compare)> put_back = {};
  };

  static Result<std::shared_ptr<Debugger>> create(Options options);
  ~Debugger() override;

  // ---- for the Vm

  // A machine is there, and none of its CPUs has run. Borrowed until detach_machine().
  void attach_machine(RunControl& control, Facts facts);
  void detach_machine();
  // Now and then while the machine runs: looks after planted bytes.
  void look();
  bool wants_looks() const { return !planted_.empty() || timed_; }

  // The guest's memory is its own as long as this lives; the CPUs are at rest meanwhile.
  class Lifted {
   public:
    explicit Lifted(Debugger& debugger);
    Lifted(const Lifted&) = delete;
    Lifted& operator=(const Lifted&) = delete;
    ~Lifted();

   private:
    const std::unique_lock<std::mutex> lock_;
    Debugger& debugger_;
  };

  // May be null.
  const Symbols* symbols() const noexcept { return options_.symbols.get(); }

  // ---- for vCPU threads

  // The CPU stops on its own account; the bell is to be rung when it has parked.
  std::shared_ptr<StopBell> note(StopEvent event);
  // The CPU has met the breakpoint at this linear address. True: nobody is to be told, its
  // conditions are false, and the CPU can step over it without a word to the others; no INT3 is in
  // the way until stepped_over().
  bool passes(const kvm::VcpuFd& cpu, const GuestMemory& memory, std::uint64_t address);
  void stepped_over(const GuestMemory& memory);
  bool planted_at(Gpa address) const { return planted_.contains(address); }
  // The guest writes to a page that is guarded, and KVM has left that to us: done, under INT3 where
  // that stands. A watchpoint that this meets. Errors: the memory's.
  Result<std::optional<WatchedMemory::Met>> write_guarded(const GuestMemory& memory, Gpa to,
                                                          std::span<const std::byte> bytes);
  // The same for a read from a page that is hidden, which sees no INT3.
  Result<std::optional<WatchedMemory::Met>> read_hidden(const GuestMemory& memory, Gpa from,
                                                        std::span<std::byte> bytes);
  // The guest has read that: a watchpoint that this meets.
  std::optional<WatchedMemory::Met> watched_read(Gpa from, std::uint64_t size) const {
    return watched_.read(from, size);
  }
  // This process has written memory for the guest: INT3 stands again. As above.
  std::optional<WatchedMemory::Met> look_at_memory(const GuestMemory& memory);
  // The guest has been in this process: INT3 stands again.
  void renew_planted(const GuestMemory& memory) {
    if (!lifted_) (void)planted_.renew(memory);
  }

  // ---- for whoever serves a debugger

  // Readable when a CPU has reported a stop: then forget_signal() and take_stop().
  int stop_fd() const noexcept { return bell_->fd(); }
  void forget_signal() noexcept { bell_->forget(); }
  // After a resume() for steps: looks for some microseconds whether one is done, which is sooner
  // than poll(2) would tell. True: take_stop() now, as stop_fd() may not say so.
  bool await_step() noexcept;
  // Stops the other CPUs and says what happened; nothing when it was nothing.
  std::optional<StopEvent> take_stop();
  // The guest cannot run on: it is held, and a debugger may look at it.
  void report_crash(const StopInfo& stop);
  // Whether somebody wants the guest to stand who therefore does not call Vm::run(). Any thread.
  void pause_run(bool paused) noexcept { run_paused_ = paused; }
  // Whether a debugger has stopped the guest. Any thread; does not wait.
  bool holds() const noexcept { return holding_; }
  // Ends waiting for a machine, for good.
  void give_up();

  // ---- Target
  unsigned cpus() const override;
  Result<StopEvent> interrupt() override;
  Result<void> resume(std::span<const ResumeAction> actions) override;
  std::string waits_for() override;
  Result<void> resume_back(ResumeAction::Kind kind) override;
  void detach() override;
  void kill() override;
  Result<CpuState> state(unsigned cpu) override;
  Result<void> set_state(unsigned cpu, const CpuState& state) override;
  std::string activity(unsigned cpu) override;
  Architecture architecture(unsigned cpu) override;
  Result<std::size_t> read_memory(unsigned cpu, Space space, std::uint64_t address,
                                  std::span<std::byte> bytes) override;
  Result<void> write_memory(unsigned cpu, Space space, std::uint64_t address,
                            std::span<const std::byte> bytes) override;
  Result<void> insert(unsigned cpu, const Breakpoint& breakpoint) override;
  Result<void> remove(const Breakpoint& breakpoint) override;
  Result<void> set_conditions(const Breakpoint& breakpoint,
                              std::vector<StopCondition> conditions) override;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ram() const override;
  std::optional<std::uint64_t> kernel_offset() override;
  // The same for symbols of the caller's.
  std::optional<std::uint64_t> kernel_offset_of(const Symbols& symbols);
  std::optional<Symbols::Segments> kernel_segments() override;
  Result<std::string> monitor(unsigned cpu, std::string_view command) override;

 private:
  Debugger(Options options, std::shared_ptr<StopBell> bell);

  // Something is to be told that no CPU has stopped for.
  void report(StopEvent event) { note(std::move(event))->ring(); }

  // mutex_, for what a debugger asks of the guest that it holds: between two machines of one that
  // resets that is the next one, which is waited for.
  std::unique_lock<std::mutex> lock_machine();

  // All below: mutex_ held.
  Result<RunControl*> machine() const;
  // Runs `fn` on the CPU's thread and hands back what it returned (debugger_on_cpu.h).
  template <typename Fn>
  auto on_cpu(unsigned cpu, Fn fn) const -> std::invoke_result_t<Fn, kvm::VcpuFd&>;
  Result<CpuState> state_locked(unsigned cpu) const;
  Result<void> set_wishes(std::span<const ResumeAction> actions);
  Result<std::shared_ptr<const Snapshot>> snapshot_locked();
  Result<void> reset_locked(const std::shared_ptr<const Snapshot>& snapshot);
  Result<void> go_on(std::span<const ResumeAction> actions);
  Result<std::size_t> read_locked(unsigned cpu, Space space, std::uint64_t address,
                                  std::span<std::byte> bytes) const;
  // Not mutex_: up to the first byte that is not there.
  std::size_t read_pages(const GuestMemory& memory, const std::optional<PagingContext>& context,
                         std::uint64_t address, std::span<std::byte> bytes) const;
  // Conditions (debugger_conditions.cc).
  bool matters(const StopEvent& event) const;
  // What vCPUs judge by themselves.
  struct Judged {
    std::vector<Breakpoints::Entry> entries;
    bool alone = false;  // one CPU runs
  };
  void let_cpus_judge(std::span<const ResumeAction> actions);
  Result<void> step_over(unsigned cpu);
  void end_step_over();
  bool was_asked_step(unsigned cpu) const;
  std::optional<StopEvent> judge(std::vector<StopEvent> events);
  Result<void> check_steps(std::span<const ResumeAction> actions);
  void remove_all();
  void leave_memory();
  static std::optional<Gpa> translate(const GuestMemory& memory,
                                      const std::optional<PagingContext>& context,
                                      std::uint64_t address, std::size_t& size);
  Result<std::optional<PagingContext>> context(unsigned cpu, Space space) const;
  Result<Breakpoints::Entry> place(unsigned cpu, const Breakpoint& point);
  Result<void> check_user_code(const CpuState& state, const Breakpoint& point,
                               const PageWalk& walk);
  Result<void> check_slots(const Breakpoints::Entry& entry) const;
  Result<Breakpoints::Entry> place_code(unsigned cpu, const Breakpoint& point);
  Result<Breakpoints::Entry> place_watch(unsigned cpu, const Breakpoint& point);
  Result<std::vector<WatchedRange>> pages_of(unsigned cpu, const Breakpoint& point) const;
  // Has the pages guarded that planted bytes and watchpoints need; the CPUs are at rest.
  Result<void> guard_pages();
  std::set<Gpa> stack_pages() const;
  // That must not be hidden: what CPUs, and KVM, read by themselves.
  std::set<Gpa> unhidable_pages() const;
  // A guarded page turned out to be one: what is to be told, or nothing and the guest goes on.
  std::optional<StopEvent> on_guarded_stack(const StopEvent& event);
  // Checkpoints (debugger_history.cc).
  Result<std::shared_ptr<const Snapshot>> checkpoint_locked();
  void make_due_checkpoint();
  void set_checkpoint_interval(std::chrono::milliseconds every);
  // Recording, and going back (debugger_history.cc). While either is the case the CPU goes step by
  // step, and breakpoints are judged between two steps.
  bool taped() const noexcept { return history_.recording || history_.past.has_value(); }
  Result<std::string> record_command(std::string_view what, std::size_t ticks);
  Result<void> check_recordable();
  Result<void> begin_recording(std::size_t ticks);
  void end_recording();
  void forget_history();
  Result<void> record_on();
  void begin_part(std::shared_ptr<const Snapshot> start);
  TapeHead& head() const;
  Result<void> set_tape(TapeHead head);
  void set_stops(TapeHead& head);
  void place_anew();
  std::optional<StopEvent> on_tape_stop(const StopEvent& event);
  Moment here() const;
  // Errors: the guest is in its past.
  Result<void> in_present() const;
  Result<void> enter_past();
  Result<void> leave_past(bool compare);
  Result<void> start_of(std::size_t part, bool compare);
  Result<void> play_to(std::size_t tick);
  Result<void> go_to(Moment moment, StopEvent told);
  Result<void> look_back(Moment before);
  void note_hit(const StopEvent& event);
  Result<void> go_forward(const ResumeAction& action);
  Result<std::optional<StopEvent>> after_played(const StopEvent& event);
  std::optional<StopEvent> on_played(const StopEvent& event);
  // Facts about the host that cost a probe, made when they are first wanted.
  Result<bool> watchpoints_fire();
  Result<bool> user_code_stops();

  const Options options_;
  const std::shared_ptr<StopBell> bell_;
  PlantedBytes planted_;
  WatchedMemory watched_;
  Locked<std::vector<StopEvent>> reported_;
  Locked<std::shared_ptr<const Judged>> judged_;
  std::atomic<bool> lifted_{false};  // INT3 is nowhere: the only CPU that runs steps over one

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  RunControl* control_ = nullptr;
  Facts facts_;
  Breakpoints breakpoints_;
  std::vector<ResumeAction> asked_;  // of the CPUs, by the last resume()
  std::vector<CpuWish> wishes_;      // of the CPUs, as they have them; empty: not known
  // How their addresses are to be understood; what has been asked for since they stopped.
  mutable std::map<unsigned, PagingContext> contexts_;
  std::optional<unsigned> over_;  // this CPU alone steps over a breakpoint
  Checkpoints checkpoints_;
  // Checkpoints that make themselves: how often, and whether one is due.
  std::atomic<bool> timed_{false};
  std::chrono::milliseconds every_{0};
  std::chrono::steady_clock::time_point last_checkpoint_{};
  bool checkpoint_due_ = false;
  History history_;
  std::set<Gpa> stacks_;      // pages that are not to be guarded any more
  unsigned idle_guards_ = 0;  // how many times in a row more pages were guarded than are needed
  unsigned cpus_ = 1;         // of the last machine
  bool wait_ = false;         // the next machine is to be held
  std::atomic<bool> holding_{false};  // a debugger has stopped the guest
  std::atomic<bool> run_paused_{false};
  bool given_up_ = false;
  std::optional<StopInfo> crash_;
  std::optional<bool> watchpoints_fire_, user_code_stops_;
};

}  // namespace vmm::debug

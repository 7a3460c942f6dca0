// What a Vm is made of. For vm*.cc, which have its functions.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "vmm/collect_stats.h"
#include "vmm/crash_report.h"
#include "vmm/debug/debugger.h"
#include "vmm/event_loop.h"
#include "vmm/exit_dispatch.h"
#include "vmm/host_plan.h"
#include "vmm/machine.h"
#include "vmm/run_control.h"
#include "vmm/shadow_pages.h"
#include "vmm/snapshot/save.h"
#include "vmm/snapshot/tracked_memory.h"
#include "vmm/stop_board.h"
#include "vmm/until_loop.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

namespace vmm {

inline constexpr std::chrono::seconds kVcpuTimeout = RunControl::kVcpuTimeout;

class Vm::Impl {
 public:
  // Destroyed from the last to the first: vCPU threads end before what they use.
  std::vector<std::unique_ptr<EventLoop>> loops;  // the machine's own, then its I/O threads
  std::unique_ptr<Machine> machine;
  HostPlan plan;
  // Only with the quirk interpret-kernel.
  std::shared_ptr<interpreter::SharedLines> decoded_lines;
  std::vector<std::unique_ptr<ExitDispatch>> dispatches;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::unique_ptr<RunControl> control;
  std::shared_ptr<debug::Debugger> debugger;  // may be null
  bool traces_syscalls = false;
  std::atomic<bool> active{false};   // a run() is
  std::atomic<bool> between{false};  // a run_until() is, and lets its caller look at the guest
  mutable std::mutex run_mutex;      // held by run(), and by whoever needs the CPUs at rest
  // With run_mutex held: the CPU whose guest the thread in run() runs, and the thread that does.
  Vcpu* lent = nullptr;
  std::optional<std::thread::id> runner = {};
  // For snapshots; with run_mutex held.
  MachineShape shape;
  std::shared_ptr<const Snapshot> origin;  // what memory was mapped from
  std::optional<kvm::VcpuStateFormat> format = {};
  std::optional<TrackedMemory> tracked = {};
  ShadowPages shadow_pages = {};

  Impl() = default;
  ~Impl();

  Result<StopInfo> run(const RunOptions& options);
  Result<StopInfo> run_locked(const RunOptions& options);  // run_mutex held
  UntilHost until_host();
  // StopInfo's state and console. The CPUs stand.
  void add_state(StopInfo& stop) const;
  VmStats stats() const { return collect_stats(*machine, vcpus, dispatches); }
  void attach_debugger(std::shared_ptr<debug::Debugger> wanted);
  void detach_debugger();
  // Whether the CPUs' state may be looked at; else it is kBadState.
  Result<std::unique_lock<std::mutex>> may_look() const;
  CpuAccess cpus() const { return {vcpus, dispatches}; }
  // The CPUs at rest, as long as this is held.
  Result<std::unique_lock<std::mutex>> at_rest() const;
  Result<void> save_increment(const std::string& path, const std::string& base,
                              const std::function<bool()>& cancelled);
  Result<void> go_on_from(const std::shared_ptr<const Snapshot>& snapshot);
  std::unique_ptr<debug::Debugger::Lifted> own_memory() const;
  Result<void> ask_for_format();
  // All memory is there, and comes by no fault any more: before anything looks at it as a whole.
  Result<void> load_rest(const std::function<bool()>& cancelled = {});
  // A part of memory that could not be brought is a reason to stop, also if another one was on the
  // board when that was found out.
  void post_lost_memory();
  Result<WholeState> state();
  Result<std::shared_ptr<const Snapshot>> snapshot();
  // The CPUs are at rest, by run_mutex or by the debugger; memory is the guest's own.
  Result<std::shared_ptr<const Snapshot>> snapshot_at_rest();
  Result<void> reset_at_rest(const std::shared_ptr<const Snapshot>& snapshot);
  // The same for the CPU of a machine that has one, and for memory: devices and time stay. With
  // `compare`, kBadState names what was not as in the snapshot before; it is now.
  Result<void> put_back(const std::shared_ptr<const Snapshot>& snapshot, bool compare);
  Result<void> save(const std::string& path, const std::function<bool()>& cancelled);
  Result<void> write_core(const std::string& path, const std::function<bool()>& cancelled);
  Result<std::unique_ptr<FrozenCore>> freeze_core();
  Result<void> reset_to(const std::shared_ptr<const Snapshot>& snapshot);

 private:
  std::optional<StopBoard::Stop> wait_for_stop(const RunOptions& options);
  // Waits for one until then, or has the calling thread run the guest meanwhile.
  std::optional<StopBoard::Stop> wait_or_run(std::chrono::steady_clock::time_point until);
  // The guest's only CPU is run by the thread that waits for it, until somebody pauses it.
  void lend_cpu();
  void take_cpu_back();
  // What an S3 of the guest asks of us.
  Result<void> look_after_sleep();
  bool asleep_for_ever();
  // All that can be told of an end that nobody meant. The CPUs stand.
  std::string report_on(const StopInfo& stop) const;
  // Names of the guest's kernel, if somebody knows them.
  KernelNames names_for(const kvm::VcpuFd& cpu) const;
};

}  // namespace vmm

// Whether a machine's CPUs run. Two have a say: run(), and the debugger, which can hold the machine
// while run() waits. CPUs, clock, timers and doorbells go together.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/raw_clock.h"
#include "base/result.h"
#include "vmm/machine.h"
#include "vmm/vcpu.h"

namespace vmm {

// Any thread but a vCPU's.
class RunControl {
 public:
  // A vCPU answers between two instructions; only a host in deep trouble needs longer.
  static constexpr std::chrono::seconds kVcpuTimeout{10};

  // Both are borrowed.
  RunControl(Machine& machine, const std::vector<std::unique_ptr<Vcpu>>& vcpus)
      : machine_(machine), vcpus_(vcpus), runs_(vcpus.size(), true) {}
  RunControl(const RunControl&) = delete;
  RunControl& operator=(const RunControl&) = delete;

  // run() begins and ends. Errors: of the host; after stop() the CPUs stand, or it says which one
  // did not.
  Result<void> start();
  Result<void> stop();

  // The debugger stops the CPUs, and lets those go on for which `runs` is true. hold() returns when
  // they stand, whoever had stopped them.
  Result<void> hold();
  Result<void> release(std::vector<bool> runs);
  bool held() const;
  // Whether the guest's time goes on while the debugger holds it. Otherwise it stands still, as far
  // as a guest can tell.
  void let_time_go_on(bool goes_on);
  // The CPUs' TSCs, and kvmclock as well, have been given the time at which they are to go on.
  void time_was_set(bool kvm_clock);
  // The first CPU runs and nothing else does: the guest's time stands still, and so do its devices.
  // While it is held, and until the next hold().
  Result<void> play();

  // A third one that has a say: the embedder, which stops the CPUs whatever the others want.
  Result<void> pause();
  Result<void> resume();
  bool paused() const;
  // Neither of them lets the CPUs run.
  bool stands() const;

  const std::vector<std::unique_ptr<Vcpu>>& vcpus() const noexcept { return vcpus_; }
  Machine& machine() const noexcept { return machine_; }

 private:
  Result<void> go();  // mutex_ held, as the next
  Result<void> rest();
  Result<void> stop_for(bool& why);
  Result<void> go_on();
  // What goes on by itself is set back to where the guest was stopped.
  void put_clocks_right();
  void turn_tscs_back(std::chrono::nanoseconds by);
  void turn_kvm_clock_back(std::chrono::nanoseconds by);

  Machine& machine_;
  const std::vector<std::unique_ptr<Vcpu>>& vcpus_;
  mutable std::mutex mutex_;  // guards the rest
  bool started_ = false;
  bool held_ = false;
  bool paused_ = false;
  std::vector<bool> runs_;  // when not held
  bool time_goes_on_ = false;
  // Since when the guest stands although it was started; its clocks, since when they are ahead.
  struct Standing {
    RawClock::time_point tscs, kvm_clock;
    bool held = false;  // by the debugger, which came first
  };
  std::optional<Standing> standing_;
};

}  // namespace vmm

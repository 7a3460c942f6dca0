// One virtual CPU: a thread that is the sole user of its KVM descriptor while the guest runs.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/lookout.h"
#include "base/owned_counter.h"
#include "base/result.h"
#include "devices/device.h"
#include "vmm/debug/cpu_debug.h"
#include "vmm/debug/stop_bell.h"
#include "vmm/kick_timer.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/stop_board.h"
#include "vmm/vcpu_exit.h"

namespace vmm {

// What a vCPU thread does after an exit.
enum class AfterExit : std::uint8_t {
  kRunOn,
  kPark,  // stop at an instruction boundary and wait to be resumed
};

// What a vCPU thread does next.
struct NextStep {
  // False: the CPU is halted, or waits to be started. The thread waits for a nudge().
  bool enter = true;
  // True: neither; before_entry() is called again at once.
  bool again = false;
  // What the guest has done without KVM_RUN; it is handled as if that had returned it. Borrowed
  // from the handler until then.
  const VcpuExit* exit = nullptr;
  // What was handed to KVM for delivery at this entry: an interrupt's vector; whether anything else
  // was, an NMI, or INIT and start-up.
  std::optional<std::uint8_t> interrupt = {};
  bool other_event = false;
  bool nmi = false;  // one of these
  // When the handler wants to be asked again at the latest, in or out of KVM_RUN.
  std::optional<std::chrono::steady_clock::time_point> deadline = {};
};

// Decides about exits; called on the vCPU's own thread.
class ExitHandler {
 public:
  virtual ~ExitHandler() = default;
  virtual AfterExit handle(kvm::VcpuFd& cpu, VcpuExit& exit) = 0;
  // Called before each KVM_RUN: the last moment to hand an interrupt to the CPU.
  virtual Result<NextStep> before_entry(kvm::VcpuFd& cpu) = 0;
  // The vCPU was paused, and runs again. Its state and memory may be others than before.
  virtual void resumed() noexcept {}
  // It is about to be paused: what is to be rung when it is, and its state can be looked at.
  virtual std::shared_ptr<debug::StopBell> pausing() noexcept { return {}; }
  // KVM_RUN itself failed: the vCPU parks.
  virtual void host_error(Error error) = 0;
  // What is armed for debugging; used on the vCPU's thread.
  debug::CpuDebug& debug() noexcept { return debug_; }
  const debug::CpuDebug& debug() const noexcept { return debug_; }

 private:
  debug::CpuDebug debug_;
};

// States: Paused (waits, runs posted closures), Running (in KVM_RUN or in the handler), Finished
// (thread has ended). Starts Paused. All functions are for other threads than the vCPU's own, and
// safe from any of them.
//
// The guest may also be run by another thread for a while, which spares a run two switches of
// threads: that is the vCPU's thread then, from lend() to take_back().
class Vcpu final : public StopBoard::Listener {
 public:
  // `handler` is borrowed and outlives the Vcpu; `kick_signal` is from install_kick_signal().
  Vcpu(kvm::VcpuFd fd, ExitHandler& handler, int kick_signal);
  ~Vcpu();  // finishes the thread and joins it
  // Begins with that, and closes KVM's descriptor: false when the CPU runs, which nothing but the
  // destructor ends. From then on there is only the destructor; the handler is used no more.
  bool finish_early();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  VcpuId id() const noexcept { return static_cast<VcpuId>(fd_.id()); }
  // For closures of call().
  debug::CpuDebug& debug() noexcept { return handler_.debug(); }

  // Its thread is made when it first has to run the guest. Errors: the host has no thread for it.
  Result<void> resume();
  // Asks the vCPU to pause and returns at once; wait_paused() waits. Pending PIO and MMIO are
  // completed first, so the state that a paused vCPU shows is at an instruction boundary.
  void request_pause();
  // Errors: kTimeout when the vCPU did not pause in time.
  Result<void> wait_paused(std::chrono::milliseconds timeout);

  // Makes a running vCPU leave KVM_RUN, or its wait for an interrupt, once, so that before_entry()
  // is called again. Does not wait.
  // On the vCPU's own thread, and in a closure of call(), there is nothing to do: it gets there
  // anyway.
  void nudge();

  // Runs `fn` between two instructions and returns when it has: on the vCPU's thread while that
  // runs the guest, else here and now, with the thread kept asleep. Errors: kTimeout; kCancelled
  // when the vCPU has finished.
  Result<void> call(std::function<void(kvm::VcpuFd&)> fn, std::chrono::milliseconds timeout);

  // The calling thread is to run the guest; while the vCPU is paused. resume() wakes nobody then.
  void lend();
  // That is over; a vCPU that has been resumed goes on on its own thread. Errors: of resume().
  Result<void> take_back();
  // A turn of the thread that lend() was called by: runs the guest until it pauses or parks, until
  // `until`, or end_turn(). Whether the vCPU is to run on: false when it is paused.
  // An exception of the handler ends the process, as on the vCPU's own thread.
  bool run_here(KickTimer::TimePoint until) noexcept;
  // Ends the turn under way, or the next one at once. Any thread, also the one that runs the guest.
  void end_turn() override;
  // What has ended turns up to here was seen.
  void begin_turns() { turn_over_.store(false); }

  // Processor time of its thread, and of others' turns.
  std::chrono::nanoseconds cpu_time() const;
  // KVM_RUN returns since creation.
  std::uint64_t exits() const noexcept { return exits_.value(); }
  std::uint64_t kicks() const noexcept { return kicks_.load(std::memory_order_relaxed); }

 private:
  enum class State : std::uint8_t { kPaused, kRunning, kFinished };

  // While one thread runs the guest.
  struct Turn {
    KickTimer& timer;
    std::optional<KickTimer::TimePoint> until = {};  // none: as long as it is wanted
  };

  // mutex_ is held.
  Result<void> start_thread();
  void thread_main();
  // Waits while Paused or lent, running posted closures; false when the thread is to end.
  bool wait_until_running();
  void run_until_told_otherwise(const Turn& turn);
  bool run_once(const Turn& turn);  // false when the vCPU is to stop running
  bool is_over(const Turn& turn) const;
  // The calling thread is Running from now on; and no longer. mutex_ is held, and by the latter let
  // go of for a moment.
  void begin_running();
  void end_running(std::unique_lock<std::mutex>& lock);
  void finish_instruction();
  // Waits as `next` says, running posted closures; false when the vCPU is to stop running.
  bool wait_for_nudge(const NextStep& next);
  // For the waits that are over soon: mutex_ is released for a moment; whether anything has changed
  // since.
  bool look_for_news(std::unique_lock<std::mutex>& lock, Lookout& lookout);
  // Something has changed; with the lock or just after it.
  void tell();
  // mutex_ is held.
  void run_mailbox(std::unique_lock<std::mutex>& lock);
  void park();
  // With mutex_ held or without; takes kick_mutex_. Whoever has changed something for the thread to
  // see has done so before.
  void kick();
  // The thread, before it looks at what has changed: kicks that come from now on are for later
  // ones.
  void forget_kicks();
  void set_kickable(bool kickable);

  kvm::VcpuFd fd_;
  ExitHandler& handler_;
  const int kick_signal_;

  // Held while closures run, which may wait for locks of devices.
  mutable std::mutex mutex_;  // guards the next seven
  std::condition_variable changed_;
  bool lent_ = false;
  std::chrono::nanoseconds lent_time_{};  // of processors, in turns
  std::thread thread_;
  State wanted_ = State::kPaused;
  State actual_ = State::kPaused;
  std::deque<std::function<void()>> mailbox_;
  // Whoever nudges may hold such a lock: nothing is waited for with this one held.
  std::mutex kick_mutex_;  // guards the next five
  std::condition_variable kicked_;
  bool kickable_ = false;                  // Running, and not on its way to Paused by itself
  pthread_t runner_{};                     // who runs the guest, while it is kickable
  bool waiting_ = false;                   // in wait_for_nudge()
  bool nudged_ = false;                    // kicked since the last wait
  std::atomic<std::thread::id> caller_{};  // who runs the guest, or a closure while it is paused
  std::atomic<bool> turn_over_{false};
  std::atomic<std::uint32_t> news_{0};  // counts what changed_ is notified of
  // For an answer of the thread; and its own, for a debugger that asks for one step after the
  // other.
  Lookout answer_{std::chrono::microseconds(30)};
  Lookout next_step_{std::chrono::microseconds(300)};

  OwnedCounter exits_;
  std::atomic<std::uint64_t> kicks_{0};
};

}  // namespace vmm

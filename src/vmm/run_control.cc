#include "vmm/run_control.h"

#include <utility>

namespace vmm {

Result<void> RunControl::go() {
  VMM_TRY(machine_.doorbells.start());
  machine_.clock.start();
  machine_.timers.start();
  for (EventLoop* const loop : machine_.loops) {
    if (auto started = loop->start(); !started) {
      (void)rest();
      return started;
    }
  }
  for (std::size_t i = 0; i < vcpus_.size(); ++i) {
    if (!runs_[i]) continue;
    if (auto resumed = vcpus_[i]->resume(); !resumed) {
      (void)rest();  // some of them do not run without the others
      return resumed;
    }
  }
  return {};
}

Result<void> RunControl::rest() {
  for (const auto& vcpu : vcpus_) vcpu->request_pause();
  Result<void> all;
  for (const auto& vcpu : vcpus_) {
    auto paused = vcpu->wait_paused(kVcpuTimeout);
    if (!paused && all) all = std::move(paused);
  }
  machine_.doorbells.stop();
  machine_.timers.stop();
  // Unless it is to go on: timers ring when the CPUs do.
  if (!(time_goes_on_ && held_ && !paused_ && started_)) machine_.clock.stop();
  return all;
}

Result<void> RunControl::start() {
  const std::lock_guard lock(mutex_);
  if (!held_ && !paused_) VMM_TRY(go());
  started_ = true;
  return {};
}

Result<void> RunControl::stop() {
  const std::lock_guard lock(mutex_);
  started_ = false;
  // CPUs that the debugger does not let run stand already; asking them again costs nothing.
  return rest();
}

Result<void> RunControl::stop_for(bool& why) {
  const bool first = !held_ && !paused_;
  why = true;
  auto stood = rest();
  if (first && started_) {
    const auto now = RawClock::now();
    standing_ = Standing{.tscs = now, .kvm_clock = now, .held = held_};
  }
  return stood;
}

Result<void> RunControl::go_on() {
  if (held_ || paused_) return {};
  put_clocks_right();
  return started_ ? go() : Result<void>();
}

Result<void> RunControl::hold() {
  const std::lock_guard lock(mutex_);
  return stop_for(held_);
}

Result<void> RunControl::pause() {
  const std::lock_guard lock(mutex_);
  return stop_for(paused_);
}

Result<void> RunControl::resume() {
  const std::lock_guard lock(mutex_);
  if (!paused_) return {};
  paused_ = false;
  return go_on();
}

void RunControl::let_time_go_on(bool goes_on) {
  const std::lock_guard lock(mutex_);
  time_goes_on_ = goes_on;
}

void RunControl::time_was_set(bool kvm_clock) {
  const std::lock_guard lock(mutex_);
  if (!standing_) return;
  standing_->tscs = RawClock::now();
  if (kvm_clock) standing_->kvm_clock = standing_->tscs;
}

void RunControl::put_clocks_right() {
  // What a guest does not notice costs requests that steps would pay each time.
  constexpr std::chrono::milliseconds kUnnoticed{50};
  const auto standing = std::exchange(standing_, std::nullopt);
  if (!standing || (time_goes_on_ && standing->held)) return;
  const auto now = RawClock::now();
  if (now - standing->kvm_clock < kUnnoticed) return;  // it is not set without the TSCs
  turn_tscs_back(now - standing->tscs);
  // After the TSCs, by which KVM counts on.
  turn_kvm_clock_back(now - standing->kvm_clock);
}

void RunControl::turn_tscs_back(std::chrono::nanoseconds by) {
  // All CPUs by the same, which keeps what they have in common.
  std::optional<std::uint64_t> ticks;
  for (const auto& vcpu : vcpus_) {
    (void)vcpu->call(
        [&ticks, by](kvm::VcpuFd& fd) {
          const auto offset = fd.tsc_offset();
          const auto khz = fd.tsc_khz();
          if (!ticks && khz) {
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(by);
            ticks = static_cast<std::uint64_t>(seconds.count()) * *khz * 1000 +
                    static_cast<std::uint64_t>((by - seconds).count()) * *khz / 1'000'000;
          }
          if (offset && ticks) (void)fd.set_tsc_offset(*offset - *ticks);
          fd.tell_paused();
        },
        kVcpuTimeout);
  }
}

void RunControl::turn_kvm_clock_back(std::chrono::nanoseconds by) {
  const auto clock = machine_.vm.clock();
  const auto nanoseconds = static_cast<std::uint64_t>(by.count());
  if (clock && *clock >= nanoseconds) (void)machine_.vm.set_clock(*clock - nanoseconds);
}

Result<void> RunControl::release(std::vector<bool> runs) {
  const std::lock_guard lock(mutex_);
  held_ = false;
  runs_ = std::move(runs);
  runs_.resize(vcpus_.size(), true);
  return go_on();
}

Result<void> RunControl::play() {
  const std::lock_guard lock(mutex_);
  if (!held_ || paused_) return fail(ErrorCode::kBadState, "The guest is paused from elsewhere");
  return vcpus_.front()->resume();
}

bool RunControl::held() const {
  const std::lock_guard lock(mutex_);
  return held_;
}

bool RunControl::paused() const {
  const std::lock_guard lock(mutex_);
  return paused_;
}

bool RunControl::stands() const {
  const std::lock_guard lock(mutex_);
  return held_ || paused_;
}

}  // namespace vmm

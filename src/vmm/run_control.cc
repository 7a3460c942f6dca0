#include "vmm/run_control.h"

#include <utility>

namespace vmm {

Result<void> RunControl::go() {
  VMM_TRY(machine_.doorbells.start());
  machine_.clock.start();
  machine_.timers.start();
  for (std::size_t i = 0; i < vcpus_.size(); ++i) {
    if (runs_[i]) vcpus_[i]->resume();
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
    standing_ = Standing{.since = std::chrono::steady_clock::now(),
                         .kvm_clock = machine_.vm.clock().value_or(0),
                         .held = held_};
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

void RunControl::put_clocks_right() {
  // What a guest does not notice costs requests that steps would pay each time.
  constexpr std::chrono::milliseconds kUnnoticed{50};
  const auto standing = std::exchange(standing_, std::nullopt);
  if (!standing || (time_goes_on_ && standing->held)) return;
  const auto stood = std::chrono::steady_clock::now() - standing->since;
  if (stood >= kUnnoticed) turn_clocks_back(standing->kvm_clock, stood);
}

void RunControl::turn_clocks_back(std::uint64_t kvm_clock, std::chrono::nanoseconds stood) {
  // All CPUs by the same, which keeps what they have in common.
  std::optional<std::uint64_t> ticks;
  for (const auto& vcpu : vcpus_) {
    (void)vcpu->call(
        [&ticks, stood](kvm::VcpuFd& fd) {
          const auto offset = fd.tsc_offset();
          const auto khz = fd.tsc_khz();
          if (!ticks && khz) {
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(stood);
            ticks = static_cast<std::uint64_t>(seconds.count()) * *khz * 1000 +
                    static_cast<std::uint64_t>((stood - seconds).count()) * *khz / 1'000'000;
          }
          if (offset && ticks) (void)fd.set_tsc_offset(*offset - *ticks);
          fd.tell_paused();
        },
        kVcpuTimeout);
  }
  // After the TSCs, by which KVM counts on.
  if (kvm_clock != 0) (void)machine_.vm.set_clock(kvm_clock);
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
  vcpus_.front()->resume();
  return {};
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

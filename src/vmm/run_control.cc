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
  machine_.clock.stop();
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
    held_since_ = std::chrono::steady_clock::now();
    if (const auto clock = machine_.vm.clock()) kvm_clock_ = *clock;
  }
  return stood;
}

Result<void> RunControl::go_on() {
  if (held_ || paused_) return {};
  turn_clock_back();
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

void RunControl::turn_clock_back() {
  // What a guest does not notice costs a request that steps would pay each time.
  constexpr std::chrono::milliseconds kUnnoticed{50};
  const auto clock = std::exchange(kvm_clock_, std::nullopt);
  if (!clock || std::chrono::steady_clock::now() - held_since_ < kUnnoticed) return;
  (void)machine_.vm.set_clock(*clock);
  for (const auto& vcpu : vcpus_) {
    (void)vcpu->call([](kvm::VcpuFd& fd) { fd.tell_paused(); }, kVcpuTimeout);
  }
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

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/run_session.h"
#include "vmm/block/open_disk.h"

namespace vmm::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A machine answers between two instructions, or comes back from a reset.
constexpr std::chrono::seconds kPauseTimeout{15};

}  // namespace

Result<void> RunSession::open_control() {
  if (!request_.control) return {};
  control_ = VMM_TRY(with_context(
      LineServer::create(*request_.control,
                         [this](std::string_view line) { return answer_control(line, *this); },
                         {.too_long = control_too_long()}),
      "Open the control socket (--control)"));
  return {};
}

void RunSession::stay_paused(std::unique_lock<std::mutex>& lock) {
  paused_ = true;
  changed_.notify_all();
  const auto over = [this] { return !pause_wanted_ || quit_ || show_processors_ || suspend_; };
  if (end_time_) {
    if (!changed_.wait_until(lock, *end_time_, over)) pause_wanted_ = false;
  } else {
    changed_.wait(lock, over);
  }
  paused_ = false;
}

Result<Vm*> RunSession::machine() const {
  if (vm_ != nullptr) return vm_;
  return fail(ErrorCode::kTimeout, "The machine is being started: ask again");
}

ControlStatus RunSession::control_status() {
  const std::lock_guard guard(mutex_);
  ControlStatus status{
      .state = vm_ == nullptr             ? "starting"
               : paused_ && pause_wanted_ ? "paused"
                                          : "running",
      .uptime = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin_),
      .resets = resets_};
  if (vm_ == nullptr) return status;
  status.vm = vm_->status();
  status.stats = vm_->stats();
  return status;
}

Result<void> RunSession::control_pause() {
  std::unique_lock lock(mutex_);
  pause_wanted_ = true;
  if (!paused_ && vm_ != nullptr) vm_->cancel();
  changed_.wait_for(lock, kPauseTimeout, [this] { return paused_ || quit_; });
  if (paused_) return {};
  pause_wanted_ = false;
  return fail(ErrorCode::kTimeout, "The guest did not stop");
}

Result<void> RunSession::control_resume() {
  const std::lock_guard guard(mutex_);
  pause_wanted_ = false;
  changed_.notify_all();
  return {};
}

Result<void> RunSession::control_quit() {
  const std::lock_guard guard(mutex_);
  ask_to_quit("over the control socket");
  return {};
}

Result<void> RunSession::control_balloon(std::uint64_t bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_balloon(bytes));
  // For the machine after a reset.
  for (VirtioConfig& device : request_.config.virtio) {
    if (auto* const balloon = std::get_if<VirtioBalloonConfig>(&device)) balloon->size = bytes;
  }
  return {};
}

Result<void> RunSession::control_memory(std::uint64_t bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_memory(bytes));
  // For the machine after a reset.
  for (VirtioConfig& device : request_.config.virtio) {
    if (auto* const memory = std::get_if<VirtioMemConfig>(&device)) memory->size = bytes;
  }
  return {};
}

Result<std::uint64_t> RunSession::control_resize(const std::string& disk,
                                                 std::optional<std::uint64_t> bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  if (bytes) {
    // By the names that the library gives: in the order of the options.
    for (std::size_t i = 0; i < request_.disks.size(); ++i) {
      if (disk != fmt::format("disk{}", i)) continue;
      VMM_TRY(grow_image(request_.disks[i].image, *bytes));
    }
  }
  return vm->refresh_disk(disk);
}

Result<void> RunSession::control_link(const std::string& net, bool up) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_link(net, up));
  if (up) {
    links_down_.erase(net);
  } else {
    links_down_.insert(net);
  }
  return {};
}

}  // namespace vmm::cli

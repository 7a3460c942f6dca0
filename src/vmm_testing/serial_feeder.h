// Text for a guest's serial port, as fast as the guest takes it.
#pragma once

#include <poll.h>

#include <array>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>

#include "base/event_fd.h"
#include "base/result.h"
#include "vmm/vm.h"

namespace vmm::testing {

// A guest that has not looked at its port yet, or has a full queue, gets the rest later: on a
// thread of this object's own, which begins with the first text that has to wait. Any thread; goes
// before the machine does.
class SerialFeeder {
 public:
  explicit SerialFeeder(Vm& vm) : vm_(vm) {}
  SerialFeeder(const SerialFeeder&) = delete;
  SerialFeeder& operator=(const SerialFeeder&) = delete;
  ~SerialFeeder() {
    if (!thread_.joinable()) return;
    stop_->signal();
    thread_.join();
  }

  // Errors: kResource when there is no descriptor left.
  Result<void> send(std::string_view text) {
    const std::lock_guard guard(mutex_);
    waiting_ += text;
    feed();
    if (waiting_.empty() || stop_) return {};
    auto stop = EventFd::create();
    if (!stop) return tl::unexpected<Error>(stop.error());
    stop_.emplace(*std::move(stop));
    thread_ = std::thread([this] { wait_for_room(); });
    return {};
  }

  // What the guest has not taken yet.
  std::string waiting() const {
    const std::lock_guard guard(mutex_);
    return waiting_;
  }

 private:
  // mutex_ held.
  void feed() { waiting_.erase(0, vm_.push_serial_input(std::as_bytes(std::span(waiting_)))); }

  void wait_for_room() {
    std::array<pollfd, 2> fds{
        {{.fd = stop_->fd(), .events = POLLIN, .revents = 0},
         {.fd = vm_.serial_input_space().fd(), .events = POLLIN, .revents = 0}}};
    for (;;) {
      if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // a signal
      if (fds[0].revents != 0) return;
      vm_.serial_input_space().take();
      const std::lock_guard guard(mutex_);
      feed();
    }
  }

  Vm& vm_;
  mutable std::mutex mutex_;  // guards waiting_; send() makes the others
  std::string waiting_;
  std::optional<EventFd> stop_;
  std::thread thread_;  // uses what is above
};

}  // namespace vmm::testing

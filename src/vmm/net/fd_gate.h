// A descriptor whose readiness can be hidden from whoever waits for it.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// fd() is readable while the inner descriptor is and the gate is open. Not thread-safe.
class FdGate {
 public:
  // `inner` is borrowed and stays open as long as this; the gate is open.
  static Result<FdGate> create(int inner);

  int fd() const noexcept { return epoll_.get(); }
  bool open() const noexcept { return open_; }
  void set_open(bool open);

 private:
  FdGate(UniqueFd epoll, int inner) : epoll_(std::move(epoll)), inner_(inner) {}
  UniqueFd epoll_;
  int inner_;
  bool open_ = false;
};

}  // namespace vmm

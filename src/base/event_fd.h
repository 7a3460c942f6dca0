// eventfd(2): a counter that one side raises and another waits for.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// Non-blocking and close-on-exec. Any thread may signal; take() is for the one that waits.
class EventFd {
 public:
  static Result<EventFd> create();

  int fd() const noexcept { return fd_.get(); }
  // Raises the counter by one. Cannot fail in a way that loses a signal: a full counter is already
  // readable.
  void signal() const noexcept;
  // Resets the counter and returns what it was; 0 when nobody had signalled.
  std::uint64_t take() const noexcept;

 private:
  explicit EventFd(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace vmm

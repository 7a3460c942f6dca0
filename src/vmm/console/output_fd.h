// Writing to a descriptor that may be shared with other processes, without ever waiting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// O_NONBLOCK belongs to the open file, not to the descriptor: set on a terminal, it would change it
// for the shell, too. So each kind of file gets a way of its own: sockets take a flag with each
// call, pipes and terminals are opened anew through /proc, files never make anybody wait, and
// whatever remains is asked with poll(2) and given no more than it must be able to take.
//
// A pipe without a reader raises SIGPIPE: a program that writes to pipes ignores that signal.
class OutputFd {
 public:
  // Borrows `fd`, which stays open and as it is. Errors: kIo when it is not open.
  static Result<OutputFd> borrow(int fd);

  // How many bytes were taken; 0 when none can be at the moment. Errors: kIo, the other side is
  // gone or the file is full.
  Result<std::size_t> try_write(std::span<const std::byte> bytes) const;

  // What to poll for POLLOUT.
  int fd() const noexcept { return own_ ? own_.get() : borrowed_; }

 private:
  enum class Way : std::uint8_t { kPlain, kSocket, kAskFirst };
  OutputFd(int borrowed, UniqueFd own, Way way, std::size_t at_once)
      : borrowed_(borrowed), own_(std::move(own)), way_(way), at_once_(at_once) {}
  int borrowed_;
  UniqueFd own_;  // the same file, opened anew and non-blocking
  Way way_;
  std::size_t at_once_;  // most bytes of one call
};

}  // namespace vmm

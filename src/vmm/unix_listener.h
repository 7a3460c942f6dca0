// A Unix socket that a program listens on, under a name of the user's choice.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// Errors: kBadConfig, the path is empty or too long for an address.
Result<sockaddr_un> unix_address(const std::string& path);

// Listens while it lives (mode 0600, non-blocking). A socket file that nobody listens on any more
// is replaced; ours is removed at the end, if it is still ours.
class UnixListener {
 public:
  // Errors: kBadConfig, something else is there; what the path is refused for.
  static Result<UnixListener> create(std::string path, int backlog);
  UnixListener(UnixListener&&) noexcept = default;
  UnixListener& operator=(UnixListener&&) = delete;
  ~UnixListener();

  int fd() const noexcept { return fd_.get(); }
  const std::string& path() const noexcept { return path_; }
  // The next client, non-blocking; none when nobody waits.
  UniqueFd accept() const;

 private:
  UnixListener(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  UniqueFd fd_;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace vmm

// A program that serves a socket for us, and ends with us.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm::vhost {

// It leads a session of its own, with no input, our standard error stream, and no other descriptor
// of ours than its socket. The destructor kills it, and the kernel does with the thread that starts
// it.
class ChildProcess {
 public:
  static constexpr int kSocket = 3;  // the descriptor that it finds its socket at

  struct Launch {
    std::vector<std::string> words;  // its path and its arguments
    int socket = -1;                 // borrowed
    // A directory that it, and nobody else, is to see as read-only; takes root. Or empty.
    std::string read_only_directory = {};
  };

  // Errors: kResource. What fails in the new process ends it, and its socket.
  static Result<ChildProcess> start(Launch launch);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

 private:
  explicit ChildProcess(pid_t process);
  void stop();

  pid_t process_ = -1;
  UniqueFd pidfd_;
};

}  // namespace vmm::vhost

// Lines in, lines out, on a Unix socket: what a control interface speaks through.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/size.h"

namespace vmm {

// Several clients at once, on a thread of its own. Nothing of it grows with what clients send or
// leave unread: a client that does not read its answers is not asked for more lines, one whose line
// is too long is sent away. Destruction ends all conversations and removes the socket's file.
class LineServer {
 public:
  // The answer to a line; both without the line's end. Called on the server's thread, for one
  // client after the other.
  using Answer = std::function<std::string(std::string_view line)>;
  struct Options {
    std::size_t most_clients = 16;        // further ones wait until one leaves
    std::size_t most_line = KiB(64);      // bytes
    std::size_t most_waiting = KiB(256);  // bytes of answers, before no further line is read
    std::string too_long = {};            // what a client hears whose line is longer
    std::string thread_name = "control";  // at most 15 bytes
  };

  virtual ~LineServer() = default;

  // The socket's file has mode 0600; a stale one is replaced. Errors: see UnixListener::create().
  static Result<std::unique_ptr<LineServer>> create(const std::string& path, Answer answer,
                                                    Options options);
};

}  // namespace vmm

// The far side of a console: a stream, a pseudo-terminal, a socket. Moves bytes when asked, never
// waits, owns no thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_ring.h"
#include "base/result.h"

namespace vmm {

// Externally synchronised: its ConsolePump holds one lock around every call.
class ConsoleEndpoint {
 public:
  // What the pump is to poll for; -1 for nothing.
  struct Interest {
    int readable = -1;                     // read() when ready
    int writable = -1;                     // polled only while output is waiting
    int noticeable = -1;                   // refresh() when it is readable or hung up
    int hang_up = -1;                      // refresh() when it is hung up
    std::chrono::milliseconds recheck{0};  // refresh() after this time at the latest; 0: never
    bool has_output = false;               // output of its own is waiting (a replay)
  };
  struct Input {
    std::size_t size = 0;  // bytes read
    bool ended = false;    // there will be no more from this peer
  };

  virtual ~ConsoleEndpoint() = default;
  virtual Interest interest() const = 0;
  // How many bytes were taken; 0: none at the moment. Takes everything while nobody is there to
  // read it. Errors: output is over for good.
  virtual Result<std::size_t> try_write(std::span<const std::byte> bytes) = 0;
  virtual Input read(std::span<std::byte> into) = 0;
  // Looks whether a peer has come or gone.
  virtual void refresh() {}
  // Whether somebody is there to talk to.
  virtual bool has_peer() const { return true; }
  // Where a person finds it ("/dev/pts/4"); empty when that is clear.
  virtual std::string place() const { return {}; }
  // True once after interest() has changed because of a try_write(): a poll that is under way has
  // to be started anew.
  bool take_change() noexcept { return std::exchange(changed_, false); }

 protected:
  bool changed_ = false;
};

// An endpoint whose peers come and go. A new peer first sees the last output that there was.
class PeerEndpoint : public ConsoleEndpoint {
 public:
  explicit PeerEndpoint(std::size_t recent) : recent_(recent) {}
  Result<std::size_t> try_write(std::span<const std::byte> bytes) final;
  bool has_peer() const override = 0;

 protected:
  // As try_write(), to the peer; an error means that the peer is gone.
  virtual Result<std::size_t> send(std::span<const std::byte> bytes) = 0;
  virtual void drop_peer() = 0;

  void begin_replay() {
    replay_ = recent_.contents();
    replayed_ = 0;
  }
  bool replaying() const noexcept { return replayed_ < replay_.size(); }

 private:
  ByteRing recent_;  // the last output, whether anybody has seen it or not
  std::vector<std::byte> replay_;
  std::size_t replayed_ = 0;
};

// Two descriptors, borrowed; either may be -1. Ends of input are final.
Result<std::unique_ptr<ConsoleEndpoint>> make_stream_endpoint(int input_fd, int output_fd);
// A file that is created (mode 0644) or truncated, and written as the output comes; no input.
Result<std::unique_ptr<ConsoleEndpoint>> make_file_endpoint(const std::string& path);
// A pseudo-terminal in raw mode; place() is the slave's path. Survives that the slave is closed.
Result<std::unique_ptr<ConsoleEndpoint>> make_pty_endpoint(std::size_t recent);
// A listening Unix socket (mode 0600) with one client at a time; further ones wait their turn. A
// socket file that nobody listens on any more is replaced; ours is removed at the end.
Result<std::unique_ptr<ConsoleEndpoint>> make_unix_endpoint(const std::string& path,
                                                            std::size_t recent);

}  // namespace vmm

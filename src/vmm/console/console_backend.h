// The host's end of a serial line: where its output goes and where its input comes from.
//
// A backend outlives the machines that use it: after a reset the next one is connected to it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/size.h"
#include "devices/sink.h"

namespace vmm {

// Two descriptors of the caller's, borrowed and left as they are; -1 for none.
struct StreamConsole {
  int input_fd = -1;
  int output_fd = -1;
};
// Output into a file, created (mode 0644) or truncated.
struct FileConsole {
  std::string path;
};
// A new pseudo-terminal; ConsoleBackend::place() says which.
struct PtyConsole {};
// A listening Unix socket; one client at a time.
struct UnixConsole {
  std::string path;
};
// Output to nowhere, no input.
struct NullConsole {};

using ConsoleSpec = std::variant<StreamConsole, FileConsole, PtyConsole, UnixConsole, NullConsole>;

// Sees all input before the guest does, on the backend's thread, and says what the guest gets of
// it.
using InputFilter = std::function<std::vector<std::byte>(std::span<const std::byte>)>;

struct ConsoleOptions {
  std::size_t output_buffer = MiB(1);   // bytes that a slow reader may be behind
  std::size_t recent_output = KiB(64);  // what a pty or socket shows to a new peer
  std::size_t input_buffer = KiB(64);   // bytes read ahead of the guest, at least 8 KiB
  InputFilter input_filter = nullptr;
  // Read on while the guest takes nothing, so that the filter sees everything; what does not fit
  // the input buffer is then dropped and counted. Without it the sender has to wait.
  bool always_read = false;
  std::string thread_name = "console";  // at most 15 bytes
  // Whether start() is called already: a guest runs sooner when this thread is made after it.
  bool started = true;
};

// Where input goes: a machine's receiver. Called on the backend's thread.
struct ConsoleInput {
  std::function<std::size_t(std::span<const std::byte>)> push;  // how many of the bytes fit
  const EventFd* space = nullptr;  // signalled when more fit after push() took fewer than it got
};

struct ConsoleStats {
  std::uint64_t output_bytes = 0;    // written by the guest
  std::uint64_t output_dropped = 0;  // of these, lost: the reader was gone or too slow
  std::uint64_t input_bytes = 0;     // given to the guest
  std::uint64_t input_dropped = 0;
  std::string output_error;  // why the output ended early; empty when it did not
};

// Any thread may call any function.
class ConsoleBackend : public ByteSink {
 public:
  // Errors: what the path or descriptor is refused for.
  static Result<std::unique_ptr<ConsoleBackend>> create(const ConsoleSpec& spec,
                                                        ConsoleOptions options = {});
  // Begins to serve the host's side, on a thread of its own: takes input and peers, and sends on
  // what could not be written at once. No effect when it has begun. Errors: kResource.
  virtual Result<void> start() = 0;

  // What to call each time writable() turns true again (Vm::serial_output_ready()): from the
  // backend's thread, without a lock of its own held. An empty function ends that; when this
  // returns, the old one is not running any more.
  virtual void on_writable(std::function<void()> callback) = 0;
  // What to call with whether somebody is there to talk to: soon, and each time that changes; from
  // the backend's thread, without a lock of its own held. Of a peer that has left it tells when its
  // last input has been delivered. An empty function ends that, as with on_writable().
  virtual void on_peer(std::function<void(bool present)> callback) = 0;
  // From now on input goes to `input`, what was read ahead first. The previous one is forgotten.
  virtual void connect_input(ConsoleInput input) = 0;
  // When this returns, push() is not running and will not be called any more. Input is kept.
  virtual void disconnect_input() = 0;
  // Waits until all output has left this process; false when that takes longer than `timeout`.
  virtual bool flush(std::chrono::milliseconds timeout) = 0;
  virtual ConsoleStats stats() const = 0;
  // Where a person finds it ("/dev/pts/4"); empty when that is clear.
  virtual std::string place() const = 0;
};

}  // namespace vmm

// The host's side of a vsock device: byte streams between a guest's ports and the host's programs.
//
// Nothing here calls back. Who owns the device waits for ready_fd() to become readable and then
// asks for events until there are none. What a stream is ready for is told once, when it becomes
// so: whoever stops before a stream is exhausted has to remember that.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vmm {

// Externally synchronised; nothing waits.
class VsockBackend {
 public:
  // One connection's stream; the number is used again after close().
  using Stream = std::uint32_t;

  struct Event {
    Stream stream = 0;
    // A host program asks for this port of the guest's: the stream is a new one, and waits for
    // accept() or close().
    std::optional<std::uint32_t> wanted_port = {};
    bool readable = false;
    bool writable = false;
    bool hung_up = false;  // the program will neither read nor write any more
  };
  struct Transfer {
    enum class Then : std::uint8_t {
      kMore,     // some bytes went over, and there may be more, or room for more
      kBlocked,  // an event will tell when it goes on
      kEnded,    // receive(): the program sends nothing more; send(): it reads nothing more
      kFailed,   // the connection has broken
    };
    std::size_t bytes = 0;  // 0 unless kMore
    Then then = Then::kMore;
    bool hung_up = false;  // with kEnded: both directions have ended
  };

  virtual ~VsockBackend() = default;

  // A stream to whatever listens on the host's port; nothing when nobody does, or there are too
  // many streams.
  virtual std::optional<Stream> connect(std::uint32_t port) = 0;
  // The guest has taken the connection that a program asked for; `host_port` is its other end.
  virtual void accept(Stream stream, std::uint32_t host_port) = 0;

  // The pieces may lie in guest memory, which changes.
  virtual Transfer send(Stream stream, std::span<const ::iovec> pieces) = 0;
  virtual Transfer receive(Stream stream, std::span<const ::iovec> pieces) = 0;
  // The guest will send, or take, nothing more.
  virtual void end_sending(Stream stream) = 0;
  virtual void end_receiving(Stream stream) = 0;
  virtual void close(Stream stream) = 0;

  virtual std::optional<Event> next_event() = 0;
  // Readable when next_event() has one; owned by the backend.
  virtual int ready_fd() const noexcept = 0;
};

}  // namespace vmm

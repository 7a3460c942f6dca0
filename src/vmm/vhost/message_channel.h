// One socket on which vhost-user messages go, each a header, a payload and descriptors.
//
// Threats: the other end may be any program: it may say nothing, half a message, a message of
// another length, kind or version, send descriptors that nobody asked for, or not take what it is
// sent. Each wait has a deadline and ends when the owner wants to end; every length is judged
// before anything is read into it. After an error the channel is of no more use.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/vhost/vhost_protocol.h"

namespace vmm::vhost {

class MessageChannel {
 public:
  static constexpr std::size_t kMostPayload = 4096;

  struct Message {
    Header header;
    std::vector<std::byte> payload;
  };

  // `end` is borrowed: once it is signalled, all that waits ends with kCancelled. `patience`: how
  // long one message may take.
  MessageChannel(UniqueFd socket, const EventFd& end, std::chrono::milliseconds patience);

  int fd() const noexcept { return socket_.get(); }

  // Errors: kIo, kTimeout, kCancelled.
  Result<void> send(const Header& header, std::span<const std::byte> payload,
                    std::span<const int> fds = {}) const;
  // The next message. Errors: as for send(); kIo when it is none, or has descriptors.
  Result<Message> receive() const;

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint deadline() const { return std::chrono::steady_clock::now() + patience_; }
  Result<void> wait(short events, TimePoint until) const;
  Result<void> read_exactly(std::span<std::byte> into, TimePoint until) const;

  UniqueFd socket_;
  const EventFd& end_;
  std::chrono::milliseconds patience_;
};

}  // namespace vmm::vhost

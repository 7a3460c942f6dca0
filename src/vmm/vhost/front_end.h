// The front-end's requests of the vhost-user protocol, one function each, and what was agreed on
// when the connection was made.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "vmm/vhost/message_channel.h"
#include "vmm/vhost/vhost_protocol.h"

namespace vmm::vhost {

// Functions wait for the back-end, within the channel's patience. After an error other than
// kUnsupported the connection is of no more use. Not thread-safe.
class FrontEnd {
 public:
  // Agrees on what both ends can: protocol features, queues. `config_size`: bytes of configuration
  // space that the device needs from its back-end; 0 for a kind that needs none. Errors:
  // kUnsupported for a back-end that lacks something.
  static Result<FrontEnd> connect(UniqueFd socket, const EventFd& end,
                                  std::chrono::milliseconds patience, std::uint32_t config_size);

  int fd() const noexcept { return channel_->fd(); }
  // The socket on which the back-end asks; -1 when it has no such thing.
  int backend_fd() const noexcept { return backend_ ? backend_->fd() : -1; }

  std::uint64_t features() const noexcept { return features_; }  // without kFeatureProtocol
  std::uint16_t most_queues() const noexcept { return most_queues_; }

  Result<std::vector<std::byte>> get_config(std::uint32_t size) const;
  Result<void> set_config(std::uint32_t offset, std::span<const std::byte> data) const;
  Result<void> set_features(std::uint64_t features) const;
  // One descriptor for each region.
  Result<void> set_memory(std::span<const MemoryRegion> regions, std::span<const int> fds) const;

  struct Ring {
    std::uint16_t size = 0;
    VringAddress address = {};  // the index included
    int kick = -1, call = -1, error = -1;
  };
  // Sets a ring up, from its beginning, and lets the back-end serve it.
  Result<void> start_ring(const Ring& ring) const;
  // After this the back-end does nothing with the ring any more.
  Result<void> stop_ring(std::uint32_t index) const;
  // Waits until all before has been done.
  Result<void> settle() const;

  // backend_fd() is readable: takes one request, and answers it. True when the configuration space
  // has changed.
  Result<bool> serve_backend() const;
  // Nothing more will come there.
  void close_backend() { backend_.reset(); }

 private:
  explicit FrontEnd(std::unique_ptr<MessageChannel> channel) : channel_(std::move(channel)) {}
  Result<void> agree(const EventFd& end, std::chrono::milliseconds patience,
                     std::uint32_t config_size);
  Result<void> open_backend_channel(const EventFd& end, std::chrono::milliseconds patience);

  // Sends a request without an answer of its own; with REPLY_ACK, waits until it is carried out.
  Result<void> tell(Request request, std::span<const std::byte> payload,
                    std::span<const int> fds = {}) const;
  // Sends a request and reads its answer of exactly this size.
  Result<void> ask(Request request, std::span<const std::byte> payload,
                   std::span<std::byte> answer) const;
  Result<void> read_answer(Request request, std::span<std::byte> answer) const;
  Result<std::uint64_t> ask_number(Request request) const;
  Result<void> set_descriptor(Request request, std::uint32_t index, int fd) const;

  std::unique_ptr<MessageChannel> channel_;
  std::unique_ptr<MessageChannel> backend_;
  std::uint64_t features_ = 0;
  std::uint64_t protocol_ = 0;
  std::uint16_t most_queues_ = 0;
};

}  // namespace vmm::vhost

// A process beside this one that answers a virtio device's requests.
//
// It is given rings of its own, which this interface hides, and the guest's memory, in which the
// requests' buffers lie: never the driver's rings. So whoever asks always knows what is under way,
// whatever becomes of the peer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/chain.h"
#include "memory/guest_memory.h"

namespace vmm::virtio {

// Externally synchronised: the device's lock is held around every call. No call waits: what takes
// time goes on elsewhere, and ready_fd() becomes readable when there is news.
class RemotePeer {
 public:
  enum class State : std::uint8_t {
    kStopped,   // touches no guest memory
    kStarting,  // or trying to reach the peer
    kRunning,
    kStopping,  // may still touch guest memory
    kGone,      // not there any more, or not to be trusted: start() tries again
  };
  struct News {
    State state = State::kStopped;
    bool config_changed = false;
    std::vector<std::uint16_t> restarted = {};  // queues whose restart_queue() is done
  };
  // One request has been answered.
  struct Done {
    std::uint16_t slot = 0;
    std::uint32_t written = 0;  // as the peer says
  };

  virtual ~RemotePeer() = default;

  // Constant: what it offers of the device's features and queues, and where it is, for people.
  virtual std::uint64_t features() const noexcept = 0;
  virtual std::uint16_t most_queues() const noexcept = 0;
  virtual std::string_view place() const noexcept = 0;
  // Constant: requests under way at once take at most so many segments in one queue.
  virtual std::size_t most_segments() const noexcept = 0;

  // The configuration space as it last told; empty when it has none.
  virtual std::vector<std::byte> config() const = 0;
  // Tells it what the driver wrote there; when it does not hear, the last word counts.
  virtual void write_config(std::uint32_t offset, std::span<const std::byte> data) = 0;

  // Begins to serve `queues` queues that have no request, in this memory: kStarting, then kRunning
  // or kGone. With `patient`, a peer that is not there is waited for.
  virtual void start(const GuestMemory& memory, std::uint64_t features, std::uint16_t queues,
                     bool patient) = 0;
  // Forgets all requests: kStopping, then kStopped or kGone. It touches no guest memory then,
  // unless it is one that lies.
  virtual void stop() = 0;
  // Forgets the requests of one queue, which takes none until News::restarted tells. While
  // kRunning.
  virtual void restart_queue(std::uint16_t queue) = 0;
  virtual News take_news() = 0;

  // While kRunning. Hands a request over; its slot, which is another one's after Done. Nothing when
  // there is no room.
  virtual std::optional<std::uint16_t> submit(std::uint16_t queue, const Chain& chain) = 0;
  // After the last of several submit().
  virtual void kick(std::uint16_t queue) = 0;
  // The next answer; each slot once. A peer that tells of requests that it does not have is gone.
  virtual std::optional<Done> next_done(std::uint16_t queue) = 0;

  // Readable when take_news() or next_done() may have something; owned by the peer.
  virtual int ready_fd() const noexcept = 0;
  // Makes it unreadable, before looking.
  virtual void clear_ready() noexcept = 0;
};

}  // namespace vmm::virtio

// A vhost-user back-end as the peer of a device (devices/virtio/remote_peer.h).
//
// A thread of its own, "vhost", makes the protocol's requests, each of which may take as long as
// the back-end likes, up to a limit; between them it waits for the end of the connection. Nobody
// else waits for it, but for the first handshake and for the end. Requests of the guest do not go
// through it: the device's caller puts them into the rings.
//
// Threats: message_channel.h, peer_ring.h. Whatever is wrong with a back-end makes it gone: the
// connection is closed, one line is said, and the device is told.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/event_fd.h"
#include "base/log.h"
#include "base/result.h"
#include "devices/virtio/remote_peer.h"
#include "vmm/vhost/front_end.h"
#include "vmm/vhost/peer_link.h"
#include "vmm/vhost/ring_memory.h"

namespace vmm::vhost {

class VhostPeer final : public virtio::RemotePeer {
 public:
  struct Options {
    std::uint32_t config_size = 0;               // of the kind of device; 0: not the back-end's
    std::uint16_t queues = 1;                    // that the device will have
    std::uint64_t required = 0;                  // features without which the kind is of no use
    std::chrono::milliseconds patience{10'000};  // for one answer
    std::chrono::milliseconds retry{1'000};      // between attempts to reach a back-end again
    Log log = {};
  };

  // Connects, and finds out what the back-end is. Errors: kUnsupported for one that lacks
  // something; kTimeout; whatever it cannot be reached for.
  static Result<std::unique_ptr<VhostPeer>> open(std::unique_ptr<PeerLink> link, Options options);
  ~VhostPeer() override;
  VhostPeer(const VhostPeer&) = delete;
  VhostPeer& operator=(const VhostPeer&) = delete;

  std::uint64_t features() const noexcept override { return features_; }
  std::uint16_t most_queues() const noexcept override { return most_queues_; }
  std::string_view place() const noexcept override { return link_->place(); }
  std::size_t most_segments() const noexcept override { return PeerRing::kSize; }
  std::vector<std::byte> config() const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
  void start(const GuestMemory& memory, std::uint64_t features, std::uint16_t queues,
             bool patient) override;
  void stop() override;
  void restart_queue(std::uint16_t queue) override;
  News take_news() override;
  std::optional<std::uint16_t> submit(std::uint16_t queue, const virtio::Chain& chain) override;
  void kick(std::uint16_t queue) override;
  std::optional<Done> next_done(std::uint16_t queue) override;
  int ready_fd() const noexcept override { return calls_.fd(); }
  void clear_ready() noexcept override { (void)calls_.take(); }

 private:
  // What the thread is asked to do, in turn.
  struct Start {
    std::uint64_t turn = 0;
    std::vector<MemoryRegion> regions = {};
    std::vector<UniqueFd> fds = {};
    std::uint64_t features = 0;
    std::uint16_t queues = 0;
    bool patient = false;
    std::optional<Error> problem = {};  // found before
  };
  struct Stop {
    std::uint64_t turn = 0;
  };
  struct RestartQueue {
    std::uint64_t turn = 0;
    std::uint16_t queue = 0;
  };
  struct WriteConfig {
    std::uint32_t offset = 0;
    std::vector<std::byte> data = {};
  };
  struct Drop {  // a lie was found among the answers
    Error why;
  };
  using Command = std::variant<Start, Stop, RestartQueue, WriteConfig, Drop>;

  VhostPeer(std::unique_ptr<PeerLink> link, Options options, EventFd calls, EventFd errors,
            EventFd wake, EventFd end);

  // Any thread.
  void post(Command command);
  std::uint64_t new_turn(State state);

  // On the thread.
  void thread_main(std::promise<Result<void>> connected);
  bool serve_commands();  // false at the end
  void watch();           // until there is a command, or something has happened
  Result<void> connect();
  Result<void> connect_again(bool patient);
  bool pause_before_retry() const;  // false: there is something else to do
  void disconnect();
  Result<void> read_config();
  void carry_out(Start& start);
  void carry_out(const Stop& stop);
  void carry_out(const RestartQueue& restart);
  void carry_out(const WriteConfig& write);
  void carry_out(const Drop& drop);
  Result<void> set_up(const Start& start);
  Result<void> stop_rings();
  // The connection has ended, or is ended here.
  void lose(const Error& why);
  void tell(std::uint64_t turn, State state);

  const std::unique_ptr<PeerLink> link_;
  const Options options_;
  const EventFd calls_;         // of all rings, and whenever there is news
  const EventFd errors_;        // of all rings
  const EventFd wake_;          // commands
  const EventFd end_;           // once and for ever
  std::uint64_t features_ = 0;  // constant since open(), as the next
  std::uint16_t most_queues_ = 0;

  // The thread's.
  std::optional<FrontEnd> front_;
  bool rings_run_ = false;
  bool lost_ = false;  // it was said that the back-end is gone

  // The thread's until the state is kRunning, the caller's as long as it is that.
  std::optional<RingMemory> rings_;

  mutable std::mutex mutex_;  // guards the rest
  std::deque<Command> commands_;
  std::uint64_t turn_ =
      0;  // of the last start or stop: what the thread says of an older one is old
  News news_;
  std::vector<std::byte> config_;
  bool ending_ = false;

  std::thread thread_;
};

}  // namespace vmm::vhost

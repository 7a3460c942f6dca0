// A virtio device whose requests another process answers (vhost-user; docs/vhost.md): what all
// kinds of them share.
//
// The driver's rings are ours, as with any device: a request is taken out, judged, and handed to
// the peer in a ring that only we and the peer know (remote_peer.h).
//
// Emulated: the queues. Not emulated: what requests mean, which the peer knows; a kind of device
// only knows how one is answered when the peer cannot.
// Threats: drivers, as for all devices; and peers that die, hang or lie. Then what is under way and
// all that follows is answered with errors, or waits for the peer's return (Options::reconnect). A
// peer has the guest's memory, and may do to the guest what it likes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/state_id.h"
#include "devices/virtio/device.h"
#include "devices/virtio/remote_peer.h"

namespace vmm::virtio {

class Remote : public Device {
 public:
  // A request that the driver has not had an answer to.
  struct InFlight {
    std::uint16_t queue = 0;
    Chain chain = {};
    bool operator==(const InFlight&) const = default;
    static void fields(auto&& f) {
      f("queue", &InFlight::queue);
      f("chain", &InFlight::chain);
    }
  };
  struct State {
    static constexpr StateId kId{"virtio_remote", 1};
    std::vector<InFlight> in_flight = {};
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("in_flight", &State::in_flight); }
  };
  // Since creation.
  struct Counters {
    std::uint64_t requests = 0;  // answered
    std::uint64_t errors = 0;    // of these, by us instead of the peer
    std::uint64_t losses = 0;    // how often the peer went
  };
  struct Options {
    std::shared_ptr<RemotePeer> peer = {};
    std::vector<std::uint16_t> queue_sizes = {};
    std::uint64_t features = 0;  // offered to the driver
    // Requests wait while the peer is away, and are made again when it is back: for kinds whose
    // requests may be made twice.
    bool reconnect = false;
  };

  ~Remote() override;

  // The peer's ready_fd() is readable. On the event loop's thread, with the device's lock held.
  void peer_ready();
  // Whether requests are being answered by the peer; nothing while no driver wants that.
  std::optional<bool> connected() const noexcept;
  std::string_view place() const noexcept { return peer_->place(); }
  const Counters& counters() const noexcept { return counters_; }
  std::size_t under_way() const noexcept;

  std::string_view id() const noexcept final { return id_; }
  std::uint64_t features() const noexcept final { return offered_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept final { return queue_sizes_; }
  void activate(std::uint64_t features) final;
  bool process(std::uint16_t queue) final;
  bool reset() final;
  bool reset_queue(std::uint16_t queue) final;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;
  void resume() final;

 protected:
  Remote(std::string id, Options options);

  RemotePeer& peer() const noexcept { return *peer_; }
  std::uint64_t negotiated() const noexcept { return features_; }

  // Answers a request that the peer will not answer any more: how many bytes were written. Nothing:
  // it is left with the device, as one that waits for something that does not happen.
  virtual std::optional<std::uint64_t> fail_request(std::uint16_t queue, const Chain& chain) = 0;
  // The peer has other things to tell in its configuration space.
  virtual void peer_config_changed() {}
  // The peer has gone, or is there again.
  virtual void connection_changed(bool) {}
  // After power-on and after a reset.
  virtual void reset_kind() {}

 private:
  enum class Phase : std::uint8_t {
    kIdle,     // no driver
    kWaiting,  // for the peer, to begin
    kServing,
    kAlone,   // without a peer: requests are answered with errors
    kEnding,  // a reset waits until the peer lets go of guest memory
  };
  // What of one queue is under way.
  struct Line {
    std::vector<std::optional<Chain>> slots = {};  // with the peer, by its numbers
    std::vector<Chain> again = {};                 // to be handed over before all others
    bool stalled = false;                          // there was no room for the next request
    bool restarting = false;
  };

  void start_peer();
  void begin_serving();
  void peer_gone();
  void take_answers(std::uint16_t queue);
  bool relay(std::uint16_t queue);
  bool hand_over_again(std::uint16_t queue);
  bool hand_over(std::uint16_t queue, Chain& chain);
  bool fail_all(std::uint16_t queue);
  // False when the request has to stay.
  bool give_up(std::uint16_t queue, const Chain& chain);
  void recall(Line& line);  // what the peer had is to be handed over again
  void finish_restarts(std::span<const std::uint16_t> queues);
  void forget_requests();

  const std::string id_;
  const std::shared_ptr<RemotePeer> peer_;
  const std::vector<std::uint16_t> queue_sizes_;
  const std::uint64_t offered_;
  const bool reconnect_;
  Phase phase_ = Phase::kIdle;
  std::uint64_t features_ = 0;  // what the driver took; 0 while inactive
  std::vector<Line> lines_;
  Counters counters_;
  Chain chain_;
};

}  // namespace vmm::virtio

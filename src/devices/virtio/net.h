// Virtio network device: VIRTIO 1.2, section 5.1.
//
// Emulated: up to 16 pairs of queues and the control queue; mergeable receive buffers; checksums
// and segmentation both ways as far as the backend has them; MTU, link state, announcement; receive
// modes, address and VLAN filters, the driver's own address, offloads that change on the run.
// Not emulated: RSS and hash reports, notification coalescing, UDP
// segmentation of 1.3.
//
// Threats: every header of a frame is copied, judged (net_header.h) and passed on as judged; frames
// are bounded by NetBackend::kMostFrame, tables of the control queue by NetFilter. A driver without
// buffers stops the backend; one frame at most waits here for each pair.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/net_backend.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"
#include "devices/virtio/net_filter.h"

namespace vmm::virtio {

class Net final : public Device {
 public:
  // Section 5.1.2: of the first pair. The control queue follows the last pair when the driver takes
  // kMq, and the first one when it does not.
  static constexpr std::uint16_t kReceive = 0, kTransmit = 1, kControl = 2;
  static constexpr std::uint16_t kMostPairs = 16;
  static constexpr std::uint32_t kConfigSize = 12;

  // Section 5.1.3.
  static constexpr std::uint64_t kCsum = 1ULL << 0;
  static constexpr std::uint64_t kGuestCsum = 1ULL << 1;
  static constexpr std::uint64_t kCtrlGuestOffloads = 1ULL << 2;
  static constexpr std::uint64_t kMtu = 1ULL << 3;
  static constexpr std::uint64_t kMac = 1ULL << 5;
  static constexpr std::uint64_t kGuestTso4 = 1ULL << 7;
  static constexpr std::uint64_t kGuestTso6 = 1ULL << 8;
  static constexpr std::uint64_t kGuestEcn = 1ULL << 9;
  static constexpr std::uint64_t kGuestUfo = 1ULL << 10;
  static constexpr std::uint64_t kHostTso4 = 1ULL << 11;
  static constexpr std::uint64_t kHostTso6 = 1ULL << 12;
  static constexpr std::uint64_t kHostEcn = 1ULL << 13;
  static constexpr std::uint64_t kHostUfo = 1ULL << 14;
  static constexpr std::uint64_t kMrgRxbuf = 1ULL << 15;
  static constexpr std::uint64_t kStatus = 1ULL << 16;
  static constexpr std::uint64_t kCtrlVq = 1ULL << 17;
  static constexpr std::uint64_t kCtrlRx = 1ULL << 18;
  static constexpr std::uint64_t kCtrlVlan = 1ULL << 19;
  static constexpr std::uint64_t kCtrlRxExtra = 1ULL << 20;
  static constexpr std::uint64_t kGuestAnnounce = 1ULL << 21;
  static constexpr std::uint64_t kMq = 1ULL << 22;
  static constexpr std::uint64_t kCtrlMacAddr = 1ULL << 23;

  // Section 5.1.4: of the configuration space's status.
  static constexpr std::uint16_t kLinkUp = 1;
  static constexpr std::uint16_t kAnnounce = 2;

  struct State {
    static constexpr StateId kId{"virtio_net", 2};
    NetFilter filter;  // with the device's address
    std::uint16_t status = kLinkUp;
    NetOffloads to_guest;     // what received frames may use now
    std::uint16_t pairs = 1;  // those that the driver has switched on
    // Of each pair: receive buffers out of the ring, with nothing in them yet.
    std::vector<std::vector<Chain>> taken;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("filter", &State::filter);
      f("status", &State::status);
      f("to_guest", &State::to_guest);
      f("pairs", &State::pairs);
      f("taken", &State::taken);
    }
  };
  // Since creation.
  struct Counters {
    std::uint64_t sent = 0, received = 0;  // frames
    std::uint64_t send_dropped = 0;        // malformed, or refused by the backend
    std::uint64_t receive_dropped = 0;     // no buffer is large enough, or an offload is off
    std::uint64_t filtered = 0;
  };

  // A backend may serve several devices one after the other. With several, 1 to kMostPairs, they
  // are queues of one network, a pair for each; the first one speaks for all.
  Net(std::string id, const MacAddress& address, std::shared_ptr<NetBackend> backend);
  Net(std::string id, const MacAddress& address, std::vector<std::shared_ptr<NetBackend>> queues);
  ~Net() override;

  // The ready_fd() of this pair's backend is readable: on the event loop's thread, with the lock
  // held.
  void backend_ready(std::size_t pair = 0);
  // Plugs the cable in or pulls it.
  void set_link(bool up);
  // Asks the driver to make itself known to its network, which is another one now.
  void announce();

  NetBackend& backend() const noexcept { return *pairs_.front().backend; }
  const State& state() const noexcept { return s_; }
  const Counters& counters() const noexcept { return counters_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kNet; }
  std::uint64_t features() const noexcept override { return features_; }
  bool accepts(std::uint64_t features) const noexcept override;
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool polls(std::uint16_t queue) const noexcept override { return queue == kTransmit; }
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;
  void retire() override;

 private:
  static constexpr std::uint16_t kDataQueueSize = 256, kControlQueueSize = 64;
  static constexpr int kBatch = 64;     // frames before others have their turn
  static constexpr int kPublished = 8;  // of these the driver hears together

  // Of a frame: what it is judged by, and never where the guest could change it meanwhile.
  static constexpr std::size_t kHead = 18;
  // From here on frames are received where they belong; below that a copy costs less than pieces.
  static constexpr std::size_t kLarge = 4096;
  static constexpr std::size_t kMostInPlace = 64;  // pieces

  // A frame behind its header, as networks give both at once.
  struct Received {
    NetHeader header = {};
    std::array<std::byte, NetBackend::kMostFrame> frame = {};
  };
  static_assert(offsetof(Received, frame) == sizeof(NetHeader));
  // What a pair of queues has besides its state.
  struct Pair {
    std::shared_ptr<NetBackend> backend;  // null when retired
    // The frame that waits for room. Not saved: networks lose frames.
    std::unique_ptr<Received> in = std::make_unique<Received>();
    std::size_t frame_size = 0;  // 0: there is none
    std::size_t in_place = 0;    // bytes behind kHead that lie in the driver's buffers already
    std::size_t last_size = 0;   // of the frame before
  };
  static std::uint16_t receive_queue(std::size_t pair) noexcept {
    return static_cast<std::uint16_t>(2 * pair);
  }
  static std::uint16_t transmit_queue(std::size_t pair) noexcept {
    return static_cast<std::uint16_t>(2 * pair + 1);
  }
  std::uint16_t control_queue() const noexcept;
  bool switched_on(std::size_t pair) const noexcept { return pair < s_.pairs; }
  void settle_pairs();
  void stop_backends();

  State power_on() const;
  void settle(std::uint64_t features);
  bool has(std::uint64_t feature) const noexcept { return (negotiated_ & feature) != 0; }

  bool transmit(std::size_t pair);
  bool send(Pair& pair, const Chain& chain);

  enum class Room : std::uint8_t {
    kThere,         // in s_.taken
    kNone,          // the driver rings when it has some
    kNeverForThis,  // nor will there ever be
    kLater,         // too much to look through at once
  };
  bool receive(std::size_t index);
  // False when the backend has none; what may not go on is dropped here.
  bool next_frame(std::size_t index);
  // Where the next one goes, of the driver's buffers: nothing, unless it may be expected to be
  // large.
  HostView room_in_place(std::size_t index);
  Room take_buffers(std::size_t index, std::size_t bytes);
  void deliver(std::size_t index);

  // net_control.cc
  bool control();
  bool execute(ChainReader& command);
  bool set_receive_mode(std::uint8_t command, ChainReader& data);
  bool set_addresses(std::uint8_t command, ChainReader& data);
  bool set_vlan(std::uint8_t command, ChainReader& data);
  bool set_offloads(ChainReader& data);
  bool set_pairs(std::uint8_t command, ChainReader& data);

  State s_;
  std::string id_;
  MacAddress address_;       // from power-on
  std::vector<Pair> pairs_;  // constant in number
  std::vector<std::uint16_t> queue_sizes_;
  std::uint64_t features_;
  Counters counters_;

  std::uint64_t negotiated_ = 0;  // 0: no driver is at work
  NetOffloads to_host_;           // derived from it

  // Their memory is used again and again.
  Chain chain_;
  HostView view_;
  std::vector<::iovec> pieces_;
  std::vector<Segment> segments_;
};

// Which offloads a set of feature bits stands for.
NetOffloads host_offloads(std::uint64_t features) noexcept;   // HOST_*: frames to the host
NetOffloads guest_offloads(std::uint64_t features) noexcept;  // GUEST_*: frames to the guest

}  // namespace vmm::virtio

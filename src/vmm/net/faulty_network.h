// A network that loses, doubles and disorders frames on purpose: for programs that test how a guest
// takes it.
//
// Threats: frames and their number are the guest's and the peers'. What is kept is bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "devices/net_backend.h"

namespace vmm {

// What happens to some frames. Those of its direction are counted from 1; the fault hits the `nth`
// of them and `count - 1` that follow, each with its chance. A frame that several faults hit
// suffers the first of them.
struct NetFault {
  static constexpr std::uint64_t kForever = ~std::uint64_t{0};
  enum class Direction : std::uint8_t { kToHost, kToGuest };
  enum class Kind : std::uint8_t {
    kLose,
    kDuplicate,  // comes twice
    kReorder,    // comes behind the next `behind` frames; if there are none, not at all
  };

  Direction direction = Direction::kToHost;
  Kind kind = Kind::kLose;
  std::uint64_t nth = 1;
  std::uint64_t count = 1;
  double chance = 1;         // 0 to 1
  std::uint32_t behind = 1;  // at most kMostHeld
};

// Passes on to another network what no fault hits. Synchronised as any backend is: what a program
// calls from elsewhere it calls while the guest does not run.
class FaultyNetwork final : public NetBackend {
 public:
  // Frames of a direction that can be held back at a time; more are passed on as they come.
  static constexpr std::size_t kMostHeld = 64;

  // Chances are drawn from the seed: the same frames meet the same faults again.
  explicit FaultyNetwork(std::shared_ptr<NetBackend> network, std::vector<NetFault> faults = {},
                         std::uint64_t seed = 0);

  // One more fault, which counts from now on.
  void add(const NetFault& fault) { plan_.push_back({fault}); }
  // No more faults; frames that are held back come behind the next.
  void clear() { plan_.clear(); }
  // How many frames were hit.
  std::uint64_t hits() const noexcept { return hits_; }

  NetOffloads to_host() const noexcept override { return network_->to_host(); }
  NetOffloads to_guest() const noexcept override { return network_->to_guest(); }
  std::optional<std::uint16_t> mtu() const noexcept override { return network_->mtu(); }
  bool link_up() const noexcept override { return network_->link_up(); }
  void set_enabled(bool enabled) override { network_->set_enabled(enabled); }
  void allow_to_guest(const NetOffloads& allowed) override { network_->allow_to_guest(allowed); }
  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  void end_batch() override { network_->end_batch(); }
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  bool has_frame() const noexcept override { return !ready_.empty() || network_->has_frame(); }
  int ready_fd() const noexcept override { return network_->ready_fd(); }
  void want_frames(bool wanted) override { network_->want_frames(wanted); }

 private:
  struct Planned {
    NetFault fault;
    std::uint64_t seen = 0;
  };
  struct Frame {
    NetHeader header;
    std::vector<std::byte> bytes;
    std::uint32_t behind = 0;  // frames that are to pass it
  };
  using Frames = std::deque<Frame>;

  std::optional<NetFault> fault_of(NetFault::Direction direction);
  bool send_again(const Frame& frame);
  // A frame has passed those that are held: those whose turn it is.
  static Frames passed(Frames& held);

  const std::shared_ptr<NetBackend> network_;
  std::vector<Planned> plan_;
  std::mt19937_64 chances_;
  std::uint64_t hits_ = 0;
  Frames held_to_host_, held_to_guest_;
  Frames ready_;  // for the guest, in this order
};

}  // namespace vmm

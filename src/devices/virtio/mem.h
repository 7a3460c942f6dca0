// Virtio memory device: VIRTIO 1.2, section 5.15. Memory is added to a running guest and taken
// back.
//
// Emulated: PLUG, UNPLUG, UNPLUG_ALL, STATE; a requested size that changes at any time; feature
// UNPLUGGED_INACCESSIBLE, which a driver has to take. Not emulated: ACPI_PXM (there is one node),
// a usable region that is smaller than the whole.
//
// Threats: any request, any range, as often as the driver likes. What it may have in use never
// exceeds what the host asked for: a plug is refused beyond that, and comes only after all memory
// that was unplugged before has gone back to the host. Blocks that somebody still uses (a disk's
// transfer) are not unplugged: the driver is told that the device is busy. A turn gives a bounded
// number of bytes back; what a request still has to do waits for the next turn. What is unplugged
// is no RAM to other devices and inaccessible to the guest's CPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/size.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"
#include "memory/memory_blocks.h"

namespace vmm::virtio {

class Mem final : public Device {
 public:
  static constexpr std::uint16_t kQueueSize = 64;
  static constexpr std::uint32_t kConfigSize = 56;
  static constexpr std::uint64_t kMostBytes = MiB(64);  // given back in a turn
  // Section 5.15.3.
  static constexpr std::uint64_t kUnpluggedInaccessible = 1ULL << 1;
  // Section 5.15.6: requests, responses, and what a range is.
  static constexpr std::uint16_t kPlug = 0, kUnplug = 1, kUnplugAll = 2, kState = 3;
  static constexpr std::uint16_t kAck = 0, kNack = 1, kBusy = 2, kError = 3;
  static constexpr std::uint16_t kPlugged = 0, kUnplugged = 1, kMixed = 2;

  // Blocks that lie together.
  struct Run {
    std::uint32_t first = 0, count = 0;
    bool operator==(const Run&) const = default;
    static void fields(auto&& f) {
      f("first", &Run::first);
      f("count", &Run::count);
    }
  };
  struct State {
    static constexpr StateId kId{"virtio_mem", 1};
    std::uint64_t requested = 0;      // bytes that the host wants plugged
    std::vector<Run> plugged = {};    // ascending, with gaps between them
    std::optional<Chain> going = {};  // a request that waits for memory to go back to the host
    bool acknowledged = false;        // it has been judged, and what it asks for is done
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("requested", &State::requested);
      f("plugged", &State::plugged);
      f("going", &State::going);
      f("acknowledged", &State::acknowledged);
    }
  };
  // Since creation.
  struct Counters {
    std::uint64_t refused = 0;     // requests that were not acknowledged
    std::uint64_t unreleased = 0;  // bytes that the host did not take back
  };

  // `memory`: of a region at `base`, which outlives the device; nothing of it is plugged.
  // `requested`: bytes, a multiple of the block size.
  Mem(std::string id, Gpa base, MemoryBlocks& memory, std::uint64_t requested);

  // How much is to be plugged from now on, in bytes: a multiple of the block size, at most the
  // region. Tells the driver.
  void set_requested(std::uint64_t bytes);
  std::uint64_t requested() const noexcept { return requested_; }
  std::uint64_t plugged() const noexcept { return memory_.plugged_count() * memory_.block_size(); }
  std::uint64_t region_size() const noexcept { return memory_.size(); }
  std::uint64_t block_size() const noexcept { return memory_.block_size(); }
  const Counters& counters() const noexcept { return counters_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kMem; }
  std::uint64_t features() const noexcept override { return kUnpluggedInaccessible; }
  bool accepts(std::uint64_t features) const noexcept override {
    return (features & kUnpluggedInaccessible) != 0;
  }
  std::span<const std::uint16_t> queue_sizes() const noexcept override;
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void activate(std::uint64_t) override {}
  bool process(std::uint16_t queue) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  struct Request;
  struct Answer;
  // A half-open range of bytes of the region.
  struct Bytes {
    std::uint64_t begin = 0, end = 0;
  };

  // Goes on with the request that is at hand; true when it has been answered.
  bool advance(std::uint64_t& budget);
  Answer judge(const Chain& chain);
  Answer plug(const Request& request);
  Answer unplug(const Request& request);
  Answer state_of(const Request& request) const;
  // The blocks of a request; nothing when the range is none.
  std::optional<Run> blocks_of(const Request& request) const;
  // Takes the blocks out of use, all or none; their memory goes with release().
  bool withdraw(std::span<const Run> runs);
  // Gives withdrawn memory back to the host, at most `budget` bytes, which it lowers; true when all
  // has gone.
  bool release(std::uint64_t& budget);
  Result<void> replug(std::span<const Run> wanted);
  bool is_plugged(std::uint32_t block) const noexcept;
  template <typename Fn>
  std::vector<Run> runs_where(Fn&& fn) const;
  std::vector<Run> plugged_runs() const;

  const std::string id_;
  const Gpa base_;
  MemoryBlocks& memory_;
  std::uint64_t requested_;
  Counters counters_;
  std::vector<Bytes> releasing_;  // withdrawn, and not yet the host's again
  std::optional<Chain> going_;    // see State
  bool acknowledged_ = false;
  Chain chain_;
};

}  // namespace vmm::virtio

// Virtio block device: VIRTIO 1.2, section 5.2.
//
// Emulated: IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES (one segment each); features SIZE_MAX,
// SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES. Not emulated:
// geometry, secure erase, lifetime information, zones.
// Threats: any header, any sizes: what is malformed is answered with an error and costs nothing;
// one request moves at most kMostBytes, and a ring bounds how many there are. Data goes straight
// between guest memory and the host, so a reset of the driver's is pending until what is under way
// has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/block_backend.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class Blk final : public Device, private BlockClient {
 public:
  static constexpr std::uint16_t kQueueSize = 256;
  static constexpr std::uint16_t kMostQueues = 16;
  static constexpr std::size_t kSerialSize = 20;                  // bytes of the answer to GET_ID
  static constexpr std::uint32_t kMostSegments = kQueueSize - 2;  // header and status take two
  static constexpr std::uint32_t kSegmentSize = 256 * 1024;
  static constexpr std::uint64_t kMostBytes = std::uint64_t{kMostSegments} * kSegmentSize;
  static constexpr std::uint32_t kMostDiscardSectors = 1U << 21;  // 1 GiB
  static constexpr std::uint32_t kMostZeroSectors = 1U << 17;     // 64 MiB

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
    static constexpr StateId kId{"virtio_blk", 1};
    bool writeback = true;  // what the driver chose with CONFIG_WCE
    std::vector<InFlight> in_flight = {};
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("writeback", &State::writeback);
      f("in_flight", &State::in_flight);
    }
  };
  // Since creation.
  struct Counters {
    std::uint64_t requests = 0;  // answered
    std::uint64_t errors = 0;    // of these, not with success
  };
  struct Options {
    std::shared_ptr<BlockBackend> backend = {};
    std::string serial = {};   // at most kSerialSize bytes count
    std::uint16_t queues = 1;  // 1 to kMostQueues
  };

  Blk(std::string id, Options options);
  // Waits for what is under way: it uses guest memory.
  ~Blk() override;

  // The backend's event_fd() is readable. On the event loop's thread, with the device's lock held.
  void completed();
  // Waits for all that is under way and answers the driver: before the machine's state is saved.
  void finish_requests();
  // The image may have another size: asks the backend, and tells the driver. Errors: kIo.
  Result<void> refresh_size();
  // Other limits of the backend's. Errors: kUnsupported when it has none.
  Result<void> set_rates(const BlockRates& rates) { return backend_->set_rates(rates); }
  // How many requests are under way on the host.
  std::size_t under_way() const noexcept { return slots_.size() - idle_.size(); }
  // Bytes, as the driver was told.
  std::uint64_t size() const noexcept { return told_size_; }
  const Counters& counters() const noexcept { return counters_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kBlock; }
  std::uint64_t features() const noexcept override { return offered_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  std::uint32_t config_size() const noexcept override;
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool polls(std::uint16_t) const noexcept override { return true; }
  bool poll() override;
  void set_polled(bool polled) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;
  void resume() override;
  void retire() override { backend_.reset(); }

 private:
  struct Header;
  struct Slot;
  enum class Status : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
  // So many requests are started together. Their driver hears of those that end at once, and has
  // something to do, while the next ones are made.
  static constexpr std::uint32_t kAtOnce = 8;

  void start(std::uint16_t queue, Chain& chain);
  void begin(Slot& slot);
  void begin_transfer(Slot& slot, bool in, std::uint64_t sector);
  bool alone(const Slot& slot) const;
  void begin_range(Slot& slot, bool discard);
  void answer_id(Slot& slot);
  void submit(Slot& slot, BlockRequest request);
  void commit();
  void take_ended();
  void flush_cache();
  void block_done(std::uint64_t tag, int error) override;
  void finish(Slot& slot, Status status, std::uint64_t written);
  void tell_driver();
  bool writeback() const noexcept;
  std::size_t orphan(const std::uint16_t* queue);

  const std::string id_;
  std::shared_ptr<BlockBackend> backend_;  // null when retired
  const std::string serial_;
  const std::vector<std::uint16_t> queue_sizes_;
  std::uint64_t offered_ = 0;
  std::uint64_t features_ = 0;  // what the driver took; 0 while inactive
  bool writeback_ = true;
  Counters counters_;
  bool polled_ = false;
  // The flush that comes with the end of the cache: the driver asked for it again meanwhile.
  enum class CacheFlush : std::uint8_t { kNone, kUnderWay, kAgain } cache_flush_{};
  std::uint64_t told_size_ = 0;               // what the configuration space says
  std::vector<std::unique_ptr<Slot>> slots_;  // as many as ever were under way at once
  std::vector<Slot*> idle_;
  std::size_t orphans_ = 0;         // under way, of requests that a reset has taken back
  std::vector<bool> used_;          // queues with answers that the driver was not told of
  std::vector<InFlight> restored_;  // for resume()
  Chain chain_;
};

}  // namespace vmm::virtio

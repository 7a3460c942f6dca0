// A disk that fails on purpose: what a host may do to a guest, at a chosen moment.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "devices/block_backend.h"
#include "vmm/block/alarm_gate.h"

namespace vmm::block {

// What happens to some requests. Those of the kind `op` that touch the range are counted from 1;
// the fault hits the `nth` of them and `count - 1` that follow. A request that several faults hit
// suffers the first of them.
struct BlockFault {
  static constexpr std::uint64_t kForever = ~std::uint64_t{0};

  BlockOp op = BlockOp::kRead;
  std::uint64_t nth = 1;
  std::uint64_t count = 1;
  // Bytes; flushes have no place and count wherever the range is.
  std::uint64_t offset = 0;
  std::uint64_t length = kForever;

  // How long the request lies about before anything else.
  std::chrono::nanoseconds delay{0};
  // What the client is told (an errno value); 0: the request is done as if nothing were.
  int error = 0;
  // Before a read or a write fails, the first so many bytes of it are transferred.
  std::uint64_t transferred = 0;
};

// Passes on to another disk what no fault hits.
class FaultyDisk final : public BlockBackend, private BlockClient {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Clock = std::function<TimePoint()>;  // never goes back

  // Errors: kResource or kIo, for want of descriptors.
  static Result<std::unique_ptr<FaultyDisk>> create(std::shared_ptr<BlockBackend> disk,
                                                    std::vector<BlockFault> faults = {},
                                                    Clock clock = std::chrono::steady_clock::now);

  // One more fault, which counts from now on.
  void add(const BlockFault& fault) { plan_.push_back({fault}); }
  // No more faults; requests that are delayed keep what they have.
  void clear() { plan_.clear(); }
  // How many requests were hit.
  std::uint64_t hits() const noexcept { return hits_; }

  // Flushes are requests of their own here: what this is about.
  BlockLimits limits() const noexcept override {
    BlockLimits limits = disk_->limits();
    limits.durable_writes = false;
    return limits;
  }
  void submit(BlockRequest request) override;
  void commit() override { disk_->commit(); }
  void poll() override;
  int event_fd() const noexcept override { return gate_.fd(); }
  // Does not wait for delays.
  void drain() override;
  Result<void> refresh_size() override { return disk_->refresh_size(); }
  Result<void> set_rates(const BlockRates& rates) override { return disk_->set_rates(rates); }

 private:
  struct Planned {
    BlockFault fault;
    std::uint64_t seen = 0;
  };
  struct Hit {
    BlockRequest request;
    BlockFault fault;
    TimePoint due;
  };

  FaultyDisk(std::shared_ptr<BlockBackend> disk, std::vector<BlockFault> faults, AlarmGate gate,
             Clock clock);
  void block_done(std::uint64_t tag, int error) override;
  std::optional<BlockFault> fault_of(const BlockRequest& request);
  void carry_out(Hit hit);
  void carry_out_due(bool all);
  void set_alarm();

  const std::shared_ptr<BlockBackend> disk_;
  const AlarmGate gate_;
  const Clock clock_;
  std::vector<Planned> plan_;
  std::uint64_t hits_ = 0;
  std::vector<Hit> waiting_;                     // for their time
  std::vector<std::unique_ptr<Hit>> under_way_;  // their part of a transfer, or nothing
};

}  // namespace vmm::block

// A disk that lets a guest do only so much in a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "devices/block_backend.h"
#include "vmm/block/alarm_gate.h"
#include "vmm/block/token_bucket.h"

namespace vmm::block {

// What is above the limits waits here: reads in their order, and the rest in its order, so that
// reads do not wait for writes that have a limit of their own. The queues hold what the device lets
// a guest have under way, and no more. A large request starts as early as a small one; what follows
// it waits the longer.
class ThrottledDisk final : public BlockBackend {
 public:
  using TimePoint = TokenBucket::TimePoint;
  using Clock = std::function<TimePoint()>;  // never goes back

  // Errors: kResource or kIo, for want of descriptors.
  static Result<std::unique_ptr<ThrottledDisk>> create(
      std::shared_ptr<BlockBackend> disk, const BlockRates& rates,
      Clock clock = std::chrono::steady_clock::now);

  BlockLimits limits() const noexcept override { return disk_->limits(); }
  void submit(BlockRequest request) override;
  void commit() override;
  void poll() override;
  int event_fd() const noexcept override { return gate_.fd(); }
  // Whoever waits for the end does not wait for the limits.
  void drain() override;
  Result<void> refresh_size() override { return disk_->refresh_size(); }
  Result<void> set_rates(const BlockRates& rates) override;

  std::size_t waiting() const noexcept { return reads_.waiting.size() + writes_.waiting.size(); }

 private:
  struct Buckets {
    TokenBucket bytes, operations;
    TimePoint ready_at(TimePoint now) const;
    void take(std::uint64_t count, TimePoint now);
  };
  struct Waiting {
    BlockRequest request;
    std::uint64_t number;  // in the order of their coming
  };
  struct Direction {
    Buckets own;
    std::deque<Waiting> waiting;
  };

  ThrottledDisk(std::shared_ptr<BlockBackend> disk, AlarmGate gate, Clock clock);
  void start_what_may();
  Direction* next(TimePoint now, TimePoint* when);
  void pass_on(Direction& direction);

  const std::shared_ptr<BlockBackend> disk_;
  const AlarmGate gate_;
  const Clock clock_;
  Buckets all_;
  Direction reads_, writes_;
  std::uint64_t next_number_ = 0;
};

}  // namespace vmm::block

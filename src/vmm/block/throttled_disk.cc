#include "vmm/block/throttled_disk.h"

#include <algorithm>
#include <utility>

namespace vmm::block {
namespace {

std::uint64_t bytes_of(const BlockRequest& request) {
  switch (request.op) {
    case BlockOp::kRead:
    case BlockOp::kWrite:
    case BlockOp::kWriteZeroes:
      return request.length;
    case BlockOp::kFlush:
    case BlockOp::kDiscard:
      return 0;
  }
  return 0;
}

}  // namespace

ThrottledDisk::TimePoint ThrottledDisk::Buckets::ready_at(TimePoint now) const {
  return std::max(bytes.ready_at(now), operations.ready_at(now));
}

void ThrottledDisk::Buckets::take(std::uint64_t count, TimePoint now) {
  bytes.take(count, now);
  operations.take(1, now);
}

Result<std::unique_ptr<ThrottledDisk>> ThrottledDisk::create(std::shared_ptr<BlockBackend> disk,
                                                             const BlockRates& rates, Clock clock) {
  AlarmGate gate = VMM_TRY(AlarmGate::create(disk->event_fd()));
  std::unique_ptr<ThrottledDisk> throttled(
      new ThrottledDisk(std::move(disk), std::move(gate), std::move(clock)));
  VMM_TRY(throttled->set_rates(rates));
  return throttled;
}

ThrottledDisk::ThrottledDisk(std::shared_ptr<BlockBackend> disk, AlarmGate gate, Clock clock)
    : disk_(std::move(disk)), gate_(std::move(gate)), clock_(std::move(clock)) {}

Result<void> ThrottledDisk::set_rates(const BlockRates& rates) {
  const TimePoint now = clock_();
  const auto set = [&](Buckets& buckets, std::uint64_t bytes, std::uint64_t operations) {
    buckets.bytes.set(bytes, rates.burst, now);
    buckets.operations.set(operations, rates.burst, now);
  };
  set(all_, rates.bytes, rates.operations);
  set(reads_.own, rates.read_bytes, rates.read_operations);
  set(writes_.own, rates.write_bytes, rates.write_operations);
  commit();
  return {};
}

void ThrottledDisk::submit(BlockRequest request) {
  Direction& direction = request.op == BlockOp::kRead ? reads_ : writes_;
  direction.waiting.push_back({std::move(request), next_number_++});
}

void ThrottledDisk::commit() {
  start_what_may();
  disk_->commit();
}

void ThrottledDisk::poll() {
  gate_.clear();
  disk_->poll();
  commit();  // what clients submitted, and what waited for this moment
}

void ThrottledDisk::drain() {
  gate_.clear();
  while (waiting() != 0) {
    for (Direction* const direction : {&reads_, &writes_}) {
      while (!direction->waiting.empty()) pass_on(*direction);
    }
    disk_->drain();  // clients may submit more
  }
  disk_->drain();
}

void ThrottledDisk::start_what_may() {
  const TimePoint now = clock_();
  TimePoint when = TimePoint::max();
  while (Direction* const direction = next(now, &when)) {
    const std::uint64_t bytes = bytes_of(direction->waiting.front().request);
    all_.take(bytes, now);
    direction->own.take(bytes, now);
    pass_on(*direction);
  }
  if (waiting() != 0) gate_.set(when - now);
}

// Whose first request may start, the older one if both may; or when one will.
ThrottledDisk::Direction* ThrottledDisk::next(TimePoint now, TimePoint* when) {
  const TimePoint common = all_.ready_at(now);
  Direction* chosen = nullptr;
  *when = TimePoint::max();
  for (Direction* const direction : {&reads_, &writes_}) {
    if (direction->waiting.empty()) continue;
    const TimePoint ready = std::max(common, direction->own.ready_at(now));
    *when = std::min(*when, ready);
    if (ready > now) continue;
    if (chosen == nullptr || direction->waiting.front().number < chosen->waiting.front().number) {
      chosen = direction;
    }
  }
  return chosen;
}

void ThrottledDisk::pass_on(Direction& direction) {
  BlockRequest request = std::move(direction.waiting.front().request);
  direction.waiting.pop_front();
  disk_->submit(std::move(request));
}

}  // namespace vmm::block

#include "vmm/block/faulty_disk.h"

#include <algorithm>
#include <utility>

namespace vmm::block {
namespace {

bool touches(const BlockFault& fault, const BlockRequest& request) {
  if (fault.op != request.op) return false;
  if (request.op == BlockOp::kFlush) return true;
  const bool ends_before =
      request.offset <= fault.offset ? request.length <= fault.offset - request.offset : false;
  const bool begins_behind =
      request.offset >= fault.offset && request.offset - fault.offset >= fault.length;
  return !ends_before && !begins_behind;
}

bool is_hit(const BlockFault& fault, std::uint64_t number) {
  return number >= fault.nth && number - fault.nth < fault.count;
}

// The first `length` bytes of a request, and of its memory.
void shorten(BlockRequest& request, std::uint64_t length) {
  request.length = std::min(request.length, length);
  std::uint64_t left = request.length;
  for (iovec& buffer : request.buffers) {
    buffer.iov_len = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.iov_len, left));
    left -= buffer.iov_len;
  }
}

}  // namespace

Result<std::unique_ptr<FaultyDisk>> FaultyDisk::create(std::shared_ptr<BlockBackend> disk,
                                                       std::vector<BlockFault> faults,
                                                       Clock clock) {
  AlarmGate gate = VMM_TRY(AlarmGate::create(disk->event_fd()));
  return std::unique_ptr<FaultyDisk>(
      new FaultyDisk(std::move(disk), std::move(faults), std::move(gate), std::move(clock)));
}

FaultyDisk::FaultyDisk(std::shared_ptr<BlockBackend> disk, std::vector<BlockFault> faults,
                       AlarmGate gate, Clock clock)
    : disk_(std::move(disk)), gate_(std::move(gate)), clock_(std::move(clock)) {
  for (const BlockFault& fault : faults) add(fault);
}

std::optional<BlockFault> FaultyDisk::fault_of(const BlockRequest& request) {
  std::optional<BlockFault> first;
  for (Planned& planned : plan_) {
    if (!touches(planned.fault, request)) continue;
    if (is_hit(planned.fault, ++planned.seen) && !first) first = planned.fault;
  }
  return first;
}

void FaultyDisk::submit(BlockRequest request) {
  const std::optional<BlockFault> fault = fault_of(request);
  if (!fault) return disk_->submit(std::move(request));
  ++hits_;
  Hit hit{std::move(request), *fault, clock_() + fault->delay};
  if (fault->delay.count() == 0) return carry_out(std::move(hit));
  waiting_.push_back(std::move(hit));
  set_alarm();
}

void FaultyDisk::carry_out(Hit hit) {
  if (hit.fault.error == 0) return disk_->submit(std::move(hit.request));
  const bool transfer = hit.request.op == BlockOp::kRead || hit.request.op == BlockOp::kWrite;
  // What does not transfer anything asks the disk for nothing, so that the end is told from poll().
  BlockRequest part = hit.request;
  if (transfer) {
    shorten(part, hit.fault.transferred / kSectorSize * kSectorSize);
  } else {
    part = BlockRequest{.op = BlockOp::kRead};
  }
  under_way_.push_back(std::make_unique<Hit>(std::move(hit)));
  part.client = this;
  part.tag = reinterpret_cast<std::uintptr_t>(under_way_.back().get());
  disk_->submit(std::move(part));
}

void FaultyDisk::block_done(std::uint64_t tag, int) {
  const auto found =
      std::find_if(under_way_.begin(), under_way_.end(), [tag](const std::unique_ptr<Hit>& hit) {
        return reinterpret_cast<std::uintptr_t>(hit.get()) == tag;
      });
  const std::unique_ptr<Hit> hit = std::move(*found);
  under_way_.erase(found);
  BlockClient* const client = hit->request.client;
  if (client != nullptr) client->block_done(hit->request.tag, hit->fault.error);
}

void FaultyDisk::poll() {
  gate_.clear();
  carry_out_due(false);
  disk_->poll();
  disk_->commit();
  set_alarm();
}

void FaultyDisk::drain() {
  gate_.clear();
  do {
    carry_out_due(true);
    disk_->drain();  // clients may submit more
  } while (!waiting_.empty());
}

void FaultyDisk::carry_out_due(bool all) {
  const TimePoint now = clock_();
  std::vector<Hit> due;
  const auto later = std::stable_partition(waiting_.begin(), waiting_.end(),
                                           [&](const Hit& hit) { return !all && hit.due > now; });
  std::move(later, waiting_.end(), std::back_inserter(due));
  waiting_.erase(later, waiting_.end());
  for (Hit& hit : due) carry_out(std::move(hit));
}

void FaultyDisk::set_alarm() {
  if (waiting_.empty()) return;
  const auto first = std::min_element(waiting_.begin(), waiting_.end(),
                                      [](const Hit& a, const Hit& b) { return a.due < b.due; });
  gate_.set(first->due - clock_());
}

}  // namespace vmm::block

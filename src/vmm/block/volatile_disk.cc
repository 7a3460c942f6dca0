#include "vmm/block/volatile_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

namespace vmm::block {
namespace {

constexpr std::uint64_t kSectorSize = BlockBackend::kSectorSize;

// Calls fn(memory, bytes) for the pieces of a request's memory, in sectors or less.
template <typename Fn>
void copy_sectors(const BlockRequest& request, Fn&& fn) {
  std::uint64_t at = 0;
  for (const iovec& buffer : request.buffers) {
    auto* memory = static_cast<std::byte*>(buffer.iov_base);
    for (std::size_t left = buffer.iov_len; left != 0;) {
      const std::uint64_t inside = at % kSectorSize;
      const auto count =
          std::min<std::size_t>(left, static_cast<std::size_t>(kSectorSize - inside));
      fn(memory, (request.offset + at) / kSectorSize, static_cast<std::size_t>(inside), count);
      memory += count;
      left -= count;
      at += count;
    }
  }
}

// A disk that is asked by somebody who waits.
class Waiter final : public BlockClient {
 public:
  void block_done(std::uint64_t, int error) override {
    if (error_ == 0) error_ = error;
  }
  int error() const { return error_; }

 private:
  int error_ = 0;
};

}  // namespace

VolatileDisk::~VolatileDisk() = default;

bool VolatileDisk::in_range(const BlockRequest& request) const {
  const std::uint64_t size = limits().size;
  return request.offset <= size && request.length <= size - request.offset;
}

// --- What the disk behind is asked for

void VolatileDisk::start(Job job, BlockRequest below) {
  jobs_.push_back(std::make_unique<Job>(std::move(job)));
  Job& kept = *jobs_.back();
  if (kept.kind == Job::Kind::kWriteBack) {
    below.buffers = {{kept.bytes.data(), kept.bytes.size()}};
  }
  below.client = this;
  below.tag = reinterpret_cast<std::uintptr_t>(&kept);
  disk_->submit(std::move(below));
}

// A read of nothing, so that the end is told from poll().
void VolatileDisk::tell_later(BlockRequest request) {
  start({.kind = Job::Kind::kDone, .request = std::move(request)}, {.op = BlockOp::kRead});
}

void VolatileDisk::block_done(std::uint64_t tag, int error) {
  const auto found =
      std::find_if(jobs_.begin(), jobs_.end(), [tag](const std::unique_ptr<Job>& job) {
        return reinterpret_cast<std::uintptr_t>(job.get()) == tag;
      });
  const std::unique_ptr<Job> job = std::move(*found);
  jobs_.erase(found);
  if (job->kind == Job::Kind::kWriteBack) return written_back(error);
  if (job->kind == Job::Kind::kFlush) {
    write_back_->error = write_back_->error != 0 ? write_back_->error : error;
    return end_write_back();
  }
  if (job->kind == Job::Kind::kRead && error == 0) {
    copy_sectors(job->request, [&job](std::byte* memory, std::uint64_t number, std::size_t inside,
                                      std::size_t count) {
      const auto cached = job->cached.find(number);
      if (cached != job->cached.end()) std::memcpy(memory, cached->second.data() + inside, count);
    });
  }
  BlockClient* const client = job->request.client;
  if (client != nullptr) client->block_done(job->request.tag, error);
}

// --- Requests

void VolatileDisk::submit(BlockRequest request) {
  switch (request.op) {
    case BlockOp::kRead:
      return read(std::move(request));
    case BlockOp::kWrite:
      return write(std::move(request));
    case BlockOp::kFlush:
    case BlockOp::kDiscard:
    case BlockOp::kWriteZeroes:
      waiting_.push_back(std::move(request));
      return go_on();
  }
}

// What is cached now is taken along: it may have been written, and be gone, before the disk behind
// has read what was there before.
void VolatileDisk::read(BlockRequest request) {
  Job job{.kind = Job::Kind::kRead};
  const std::uint64_t first = request.offset / kSectorSize;
  const std::uint64_t end = first + request.length / kSectorSize;
  if (in_range(request)) {
    job.cached.insert(cache_.lower_bound(first), cache_.lower_bound(end));
    if (write_back_) {
      const Sectors& going = write_back_->sectors;
      job.cached.insert(going.lower_bound(first), going.lower_bound(end));
    }
  }
  BlockRequest below = request;
  job.request = std::move(request);
  start(std::move(job), std::move(below));
}

void VolatileDisk::write(BlockRequest request) {
  // What the disk behind would refuse is its to refuse.
  if (!in_range(request) || limits().read_only) return pass(std::move(request));
  copy_sectors(request, [this](std::byte* memory, std::uint64_t number, std::size_t inside,
                               std::size_t count) {
    std::memcpy(cache_[number].data() + inside, memory, count);
  });
  tell_later(std::move(request));
  if (cache_.size() > most_sectors_ && !write_back_) begin_write_back({}, false);
}

void VolatileDisk::pass(BlockRequest request) {
  BlockRequest below = request;
  start({.kind = Job::Kind::kPassed, .request = std::move(request)}, std::move(below));
}

void VolatileDisk::go_on() {
  while (!write_back_ && !waiting_.empty()) {
    BlockRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    if (request.op == BlockOp::kFlush) {
      begin_write_back(std::move(request), true);
      continue;
    }
    if (in_range(request)) {
      const std::uint64_t first = request.offset / kSectorSize;
      const std::uint64_t end = first + request.length / kSectorSize;
      cache_.erase(cache_.lower_bound(first), cache_.lower_bound(end));
    }
    pass(std::move(request));
  }
}

// --- Writing the cache

void VolatileDisk::begin_write_back(BlockRequest flush, bool asked) {
  write_back_ = std::make_unique<WriteBack>();
  write_back_->flush = std::move(flush);
  write_back_->asked = asked;
  write_back_->sectors = std::exchange(cache_, {});
  constexpr std::size_t kMostBytes = std::size_t{1} << 20;  // in one request
  // One more than there are, so that it does not end before all have been submitted.
  write_back_->under_way = 1;
  std::vector<std::byte> bytes;
  std::uint64_t first = 0;
  for (const auto& [number, sector] : write_back_->sectors) {
    const bool follows = number == first + bytes.size() / kSectorSize;
    if (!bytes.empty() && (!follows || bytes.size() >= kMostBytes)) {
      write_run(first, std::exchange(bytes, {}));
    }
    if (bytes.empty()) first = number;
    bytes.insert(bytes.end(), sector.begin(), sector.end());
  }
  if (!bytes.empty()) write_run(first, std::move(bytes));
  written_back(0);
}

void VolatileDisk::write_run(std::uint64_t first, std::vector<std::byte> bytes) {
  ++write_back_->under_way;
  BlockRequest below{.op = BlockOp::kWrite, .offset = first * kSectorSize, .length = bytes.size()};
  start({.kind = Job::Kind::kWriteBack, .bytes = std::move(bytes)}, std::move(below));
}

void VolatileDisk::written_back(int error) {
  if (write_back_->error == 0) write_back_->error = error;
  if (--write_back_->under_way != 0) return;
  if (write_back_->asked) {
    start({.kind = Job::Kind::kFlush}, {.op = BlockOp::kFlush});
  } else {
    end_write_back();
  }
}

void VolatileDisk::end_write_back() {
  const std::unique_ptr<WriteBack> done = std::move(write_back_);
  // What could not be written stays, under what has been written meanwhile: the next flush tries
  // again.
  if (done->error != 0) cache_.merge(done->sectors);
  BlockClient* const client = done->flush.client;
  if (done->asked && client != nullptr) client->block_done(done->flush.tag, done->error);
  go_on();
}

void VolatileDisk::poll() {
  disk_->poll();
  disk_->commit();
}

void VolatileDisk::drain() {
  do {
    disk_->commit();
    disk_->drain();  // clients may submit more
  } while (!jobs_.empty() || !waiting_.empty());
}

// --- The end

Result<std::uint64_t> VolatileDisk::power_cut(double survive, std::uint64_t seed) {
  drain();
  std::mt19937_64 chances(seed);
  std::uint64_t lost = 0;
  Waiter waiter;
  for (auto& [number, sector] : cache_) {
    if (std::uniform_real_distribution<double>(0, 1)(chances) >= survive) {
      ++lost;
      continue;
    }
    disk_->submit({.op = BlockOp::kWrite,
                   .offset = number * kSectorSize,
                   .length = kSectorSize,
                   .buffers = {{sector.data(), sector.size()}},
                   .client = &waiter});
  }
  disk_->commit();
  disk_->drain();
  cache_.clear();
  if (waiter.error() != 0) return fail_errno(waiter.error(), "Write what survives a power cut");
  return lost;
}

}  // namespace vmm::block

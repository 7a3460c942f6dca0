// A disk whose cache loses what was not flushed when the power is cut: for programs that test what
// a guest finds on its disk then.
//
// Writes go to the cache and are done at once; a flush has them written to the disk behind it, and
// is done when that has them for good. power_cut() throws the cache away, or writes some of it:
// disks write in an order of their own, and a write may be cut in the middle, at a sector. Discards
// and zeroes go through it.
//
// Threats: what is written and when is the guest's choice: the cache is bounded. Beyond that it is
// written without being asked, as a disk's would be.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "devices/block_backend.h"

namespace vmm::block {

class VolatileDisk final : public BlockBackend, private BlockClient {
 public:
  static constexpr std::uint64_t kCacheSize = std::uint64_t{64} << 20;  // bytes, if nothing is said

  explicit VolatileDisk(std::shared_ptr<BlockBackend> disk, std::uint64_t cache = kCacheSize)
      : disk_(std::move(disk)), most_sectors_(cache / kSectorSize) {}
  ~VolatileDisk() override;

  // The power goes: of the sectors in the cache each is written with this chance (0 to 1), drawn
  // from the seed, and the others never were. While the machine does not run, whose requests have
  // been waited for (Vm::snapshot() and the end of a machine do that). How many are lost. Errors:
  // kIo, the disk behind it.
  Result<std::uint64_t> power_cut(double survive = 0, std::uint64_t seed = 0);
  // Sectors that are in the cache only.
  std::uint64_t unflushed() const noexcept { return cache_.size(); }

  // Flushes are requests of their own here: what this is about.
  BlockLimits limits() const noexcept override {
    BlockLimits limits = disk_->limits();
    limits.durable_writes = false;
    return limits;
  }
  void submit(BlockRequest request) override;
  void commit() override { disk_->commit(); }
  void poll() override;
  int event_fd() const noexcept override { return disk_->event_fd(); }
  void drain() override;
  Result<void> refresh_size() override { return disk_->refresh_size(); }
  Result<void> set_rates(const BlockRates& rates) override { return disk_->set_rates(rates); }

 private:
  using Sector = std::array<std::byte, kSectorSize>;
  using Sectors = std::map<std::uint64_t, Sector>;  // by number

  // What the disk behind is asked for on the way to a request's end.
  struct Job {
    enum class Kind : std::uint8_t { kDone, kRead, kPassed, kWriteBack, kFlush };
    Kind kind = Kind::kDone;
    BlockRequest request = {};          // the guest's; none of a write-back that nobody asked for
    Sectors cached = {};                // kRead: what lies over what is read
    std::vector<std::byte> bytes = {};  // kWriteBack: what is written
  };
  // Sectors that are being written. One at a time: two could overtake each other.
  struct WriteBack {
    Sectors sectors = {};
    std::size_t under_way = 0;
    int error = 0;
    BlockRequest flush = {};  // whose end it is; without a client nobody's
    bool asked = false;
  };

  void block_done(std::uint64_t tag, int error) override;
  void start(Job job, BlockRequest below);
  void tell_later(BlockRequest request);
  void read(BlockRequest request);
  void write(BlockRequest request);
  void pass(BlockRequest request);
  void begin_write_back(BlockRequest flush, bool asked);
  void write_run(std::uint64_t first, std::vector<std::byte> bytes);
  void written_back(int error);
  void end_write_back();
  void go_on();  // with what had to wait for a write-back
  bool in_range(const BlockRequest& request) const;

  const std::shared_ptr<BlockBackend> disk_;
  const std::uint64_t most_sectors_;
  Sectors cache_;
  std::unique_ptr<WriteBack> write_back_;
  std::deque<BlockRequest> waiting_;
  std::vector<std::unique_ptr<Job>> jobs_;
};

}  // namespace vmm::block

// A disk over an image that is only read: what the guest writes goes to an overlay.
#pragma once

#include <memory>
#include <vector>

#include "devices/block_backend.h"
#include "vmm/block/overlay_file.h"
#include "vmm/block/raw_disk.h"

namespace vmm::block {

// A read is taken from where each sector is. A flush brings the overlay's data to the disk first,
// then the map as it was when the flush began: a bit on the disk stands for data on the disk. A
// throw-away overlay has nothing to bring anywhere.
class CowDisk final : public BlockBackend, private BlockClient {
 public:
  // `image` is read-only and uses `engine`. Errors: kIo.
  static Result<std::unique_ptr<CowDisk>> create(std::unique_ptr<RawDisk> image, Overlay overlay,
                                                 std::shared_ptr<IoEngine> engine,
                                                 const RawDiskOptions& options);
  ~CowDisk() override;

  BlockLimits limits() const noexcept override { return limits_; }
  void submit(BlockRequest request) override;
  void commit() override { overlay_->commit(); }
  void poll() override { overlay_->poll(); }
  int event_fd() const noexcept override { return overlay_->event_fd(); }
  void set_quiet(bool quiet) override { overlay_->set_quiet(quiet); }
  bool ready() const noexcept override { return overlay_->ready(); }
  void drain() override { overlay_->drain(); }
  Result<void> refresh_size() override { return {}; }  // the overlay's, which does not change

 private:
  struct Operation {
    BlockRequest request;
    std::uint64_t done = 0;  // bytes of a read
  };
  struct Flush {
    enum class Step : std::uint8_t { kData, kMap, kSeal };
    std::vector<Operation*> waiting;     // for the next round
    std::vector<Operation*> served;      // by the round under way
    std::vector<SectorMap::Page> pages;  // of the map, which that round writes
    Step step = Step::kData;
    std::size_t under_way = 0;  // requests of that step
    int error = 0;
  };
  // The tag of requests that belong to the flush; an operation's is its address.
  static constexpr std::uint64_t kFlushTag = 0;

  CowDisk(std::unique_ptr<RawDisk> image, std::unique_ptr<RawDisk> overlay, OverlayLayout layout,
          SectorMap map, bool kept);
  void block_done(std::uint64_t tag, int error) override;
  void read(Operation& op);
  void pass_on(Operation& op, BlockRequest request);
  void begin_flush();
  void sync();
  void write_map();
  void flush_done(int error);
  void end_flush();
  void finish(Operation& op, int error);

  const std::unique_ptr<RawDisk> image_;
  const std::unique_ptr<RawDisk> overlay_;
  const OverlayLayout layout_;
  const bool kept_;
  BlockLimits limits_;
  SectorMap map_;
  Flush flush_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Operation*> idle_;
};

}  // namespace vmm::block

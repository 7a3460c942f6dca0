// A disk whose sectors lie in an image file one after the other.
#pragma once

#include <memory>
#include <vector>

#include "devices/block_backend.h"
#include "vmm/block/image_file.h"
#include "vmm/block/io_engine.h"

namespace vmm::block {

struct RawDiskOptions {
  bool discard = false;  // give discarded ranges back to the host
};

// An image that does not end with a whole sector reads as if zeroes followed; a write to that
// sector completes it. When the file is truncated while it is in use, what is missing is an I/O
// error. Once a flush has failed, all later ones do: the kernel has forgotten what it could not
// write. So they do after a durable write whose data the kernel took but could not write out.
class RawDisk final : public BlockBackend, private IoOwner {
 public:
  // Errors: kBadConfig for an empty image, kIo.
  static Result<std::unique_ptr<RawDisk>> create(ImageFile image, std::shared_ptr<IoEngine> engine,
                                                 const RawDiskOptions& options);
  ~RawDisk() override;

  BlockLimits limits() const noexcept override { return limits_; }
  void submit(BlockRequest request) override;
  void commit() override { engine_->commit(); }
  void poll() override { engine_->poll(); }
  int event_fd() const noexcept override { return engine_->event_fd(); }
  void set_quiet(bool quiet) override { engine_->set_quiet(quiet); }
  bool ready() const noexcept override { return engine_->ready(); }
  void drain() override { engine_->drain(); }
  Result<void> refresh_size() override;

  const ImageFile& image() const noexcept { return image_; }

 private:
  struct Operation;

  RawDisk(ImageFile image, std::shared_ptr<IoEngine> engine, const RawDiskOptions& options);
  int problem_with(const BlockRequest& request) const;
  void io_done(IoTask& task, std::int64_t result) override;
  void start(Operation& op);
  void begin_flush();
  void flushed(std::int64_t result);
  void transfer(Operation& op);
  static bool use_bounce(Operation& op);
  template <typename Copy>
  static void copy(const Operation& op, std::uint64_t length, Copy one);
  void write_zeroes(Operation& op);
  void fallocate(Operation& op, int mode);
  void nothing(Operation& op, int error);
  void transferred(Operation& op, std::int64_t result);
  void transfer_failed(Operation& op, int error);
  void allocated(Operation& op, int error);
  void finish(Operation& op, int error);

  ImageFile image_;
  std::shared_ptr<IoEngine> engine_;
  BlockLimits limits_;
  std::uint64_t bytes_ = 0;  // of the image; limits_.size is this, rounded up
  bool local_ = false;       // as IoTask's
  bool can_punch_ = true;    // until the host says otherwise
  bool can_zero_ = true;
  int flush_error_ = 0;                                 // the first that happened
  std::vector<Operation*> flush_served_;                // by the fdatasync(2) under way
  std::vector<Operation*> flush_waiting_;               // for the next one
  std::vector<std::unique_ptr<Operation>> operations_;  // as many as ever were under way at once
  std::vector<Operation*> idle_;
};

}  // namespace vmm::block

#include "vmm/block/open_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "base/size.h"
#include "base/unique_fd.h"
#include "vmm/block/cow_disk.h"
#include "vmm/block/image_file.h"
#include "vmm/block/io_engine.h"
#include "vmm/block/nbd_disk.h"
#include "vmm/block/overlay_file.h"
#include "vmm/block/raw_disk.h"
#include "vmm/block/throttled_disk.h"

namespace vmm {
namespace {

// Makes engines of one kind, and says once when that is not the first choice.
class Engines {
 public:
  Engines(DiskEngine kind, const Log& log) : kind_(kind), log_(log) {}

  Result<std::shared_ptr<block::IoEngine>> make() {
    if (kind_ != DiskEngine::kThreads) {
      auto ring = block::make_uring_engine();
      if (ring) return std::shared_ptr<block::IoEngine>(*std::move(ring));
      if (kind_ == DiskEngine::kUring) return tl::unexpected<Error>(std::move(ring).error());
      log_(LogLevel::kWarning, "disk", "disks use threads: {}", ring.error().message());
      kind_ = DiskEngine::kThreads;
    }
    return std::shared_ptr<block::IoEngine>(VMM_TRY(block::make_thread_engine()));
  }

 private:
  DiskEngine kind_;
  const Log& log_;
};

Result<std::shared_ptr<BlockBackend>> open_one(const DiskImage& image, Engines& engines,
                                               const Log& log) {
  using namespace block;
  const bool cow = image.cow != CowMode::kNone;
  if (!image.nbd.empty()) {
    if (cow || image.direct || !image.path.empty()) {
      return fail(ErrorCode::kBadConfig,
                  "A disk at an NBD server ('{}') has no image file, overlay or page cache here",
                  image.nbd);
    }
    return std::shared_ptr<BlockBackend>(VMM_TRY(NbdDisk::open(
        {.uri = image.nbd, .read_only = image.read_only, .discard = image.discard}, log)));
  }
  const RawDiskOptions options{.discard = image.discard};
  ImageFile file = VMM_TRY(
      ImageFile::open(image.path, {.read_only = image.read_only || cow, .direct = image.direct}));
  if (!file.locked()) {
    log(LogLevel::kWarning, "disk",
        "image '{}' is on a file system without locks: nothing keeps others from writing it",
        image.path);
  }
  std::shared_ptr<IoEngine> engine = VMM_TRY(engines.make());
  auto raw = VMM_TRY(RawDisk::create(std::move(file), engine, options));
  if (!cow) return std::shared_ptr<BlockBackend>(std::move(raw));
  const std::uint64_t size = raw->limits().size;
  Overlay overlay =
      VMM_TRY(image.cow == CowMode::kKeep
                  ? open_overlay(image.cow_file, raw->image(), size, image.direct, log)
                  : throw_away_overlay(image.scratch_directory, size));
  return std::shared_ptr<BlockBackend>(
      VMM_TRY(CowDisk::create(std::move(raw), std::move(overlay), std::move(engine), options)));
}

}  // namespace

Result<std::vector<std::shared_ptr<BlockBackend>>> open_disks(std::span<const DiskImage> images,
                                                              const Log& log, DiskEngine engine) {
  Engines engines(engine, log);
  std::vector<std::shared_ptr<BlockBackend>> disks;
  for (const DiskImage& image : images) {
    auto disk = VMM_TRY(open_one(image, engines, log));
    if (image.rates.limited()) {
      disk = VMM_TRY(block::ThrottledDisk::create(std::move(disk), image.rates));
    }
    disks.push_back(std::move(disk));
  }
  return disks;
}

Result<void> grow_image(const DiskImage& image, std::uint64_t bytes) {
  if (image.read_only || image.cow != CowMode::kNone) {
    return fail(ErrorCode::kUnsupported, "Disk image '{}' is not written, and stays as it is",
                image.path);
  }
  if (!image.nbd.empty()) {
    return fail(ErrorCode::kUnsupported, "The disk '{}' is at an NBD server, and grows there",
                image.nbd);
  }
  const UniqueFd file(::open(image.path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno(errno, "Open disk image '{}'", image.path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "Look at '{}'", image.path);
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kUnsupported, "Disk image '{}' is no file: it grows by other means",
                image.path);
  }
  const auto now = static_cast<std::uint64_t>(status.st_size);
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  if (bytes < now || bytes > kMost || bytes % BlockBackend::kSectorSize != 0) {
    return fail(
        ErrorCode::kBadConfig,
        "Disk image '{}' cannot get {} bytes: it has {}, can only grow, and by sectors of {}",
        image.path, bytes, now, BlockBackend::kSectorSize);
  }
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "Grow disk image '{}' to {}", image.path, format_size(bytes));
  }
  return {};
}

}  // namespace vmm

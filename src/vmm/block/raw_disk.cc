#include "vmm/block/raw_disk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/checked.h"

namespace vmm::block {
namespace {

// Memory for one request that direct I/O cannot reach where it is: bounds what a guest can make us
// allocate.
constexpr std::uint64_t kBounceSize = 128 * 1024;
constexpr std::size_t kPage = 4096;

alignas(kPage) constexpr std::array<std::byte, kPage> kZeroPage{};
constexpr std::size_t kZeroPagesAtOnce = 256;

struct Free {
  void operator()(void* p) const noexcept { std::free(p); }
};

bool not_supported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV ||
         error == ENOTTY;
}

// What is left of `buffers` after `skip` bytes: at most IOV_MAX pieces, `most` bytes.
std::vector<iovec> rest_of(const std::vector<iovec>& buffers, std::uint64_t skip,
                           std::uint64_t most) {
  std::vector<iovec> rest;
  for (const iovec& buffer : buffers) {
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    if (most == 0 || rest.size() == IOV_MAX) break;
    const auto length = std::min<std::uint64_t>(buffer.iov_len - skip, most);
    rest.push_back({static_cast<std::byte*>(buffer.iov_base) + skip, length});
    most -= length;
    skip = 0;
  }
  return rest;
}

std::uint64_t total(const std::vector<iovec>& buffers) {
  std::uint64_t sum = 0;
  for (const iovec& buffer : buffers) sum += buffer.iov_len;
  return sum;
}

// Whether a write with RWF_DSYNC is durable: a server behind FUSE may never hear of the flag.
bool knows_dsync(int fd) {
  struct statfs status {};
  return ::fstatfs(fd, &status) == 0 && status.f_type != FUSE_SUPER_MAGIC;
}

// Whether the page cache takes writes as they come. It does not where a server is asked about each,
// and a device may be the kernel's client of one.
bool is_local(int fd) {
  struct stat file {};
  struct statfs status {};
  if (::fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || ::fstatfs(fd, &status) != 0)
    return false;
  switch (static_cast<unsigned long>(status.f_type)) {
    case EXT4_SUPER_MAGIC:  // ext2 and ext3, too
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
      return true;
    default:
      return false;
  }
}

bool aligned(std::span<const iovec> buffers, std::uint64_t alignment) {
  return std::all_of(buffers.begin(), buffers.end(), [&](const iovec& buffer) {
    return (reinterpret_cast<std::uintptr_t>(buffer.iov_base) | buffer.iov_len) % alignment == 0;
  });
}

}  // namespace

struct RawDisk::Operation : IoTask {
  BlockRequest request;
  std::uint64_t done = 0;   // bytes of the request
  std::vector<iovec> part;  // what the system call under way transfers, if not the whole request
  int error = 0;            // of an operation that is only told
  int sync_error = 0;       // of a durable write whose data may have been taken all the same
  bool bounced = false;     // the part is `bounce` instead of the caller's memory
  std::unique_ptr<std::byte, Free> bounce;
};

Result<std::unique_ptr<RawDisk>> RawDisk::create(ImageFile image, std::shared_ptr<IoEngine> engine,
                                                 const RawDiskOptions& options) {
  std::unique_ptr<RawDisk> disk(new RawDisk(std::move(image), std::move(engine), options));
  VMM_TRY(disk->refresh_size());
  if (disk->bytes_ == 0) {
    const std::string& name = disk->image_.name();
    return fail(ErrorCode::kBadConfig,
                "Disk image '{}' is empty; 'truncate -s 1G {}' gives it a size", name, name);
  }
  return disk;
}

RawDisk::RawDisk(ImageFile image, std::shared_ptr<IoEngine> engine, const RawDiskOptions& options)
    : image_(std::move(image)), engine_(std::move(engine)) {
  limits_.block_size = image_.block_size();
  limits_.physical_block = image_.physical_block();
  limits_.read_only = image_.read_only();
  limits_.discard = options.discard && !image_.read_only();
  limits_.durable_writes = !image_.read_only() && knows_dsync(image_.fd());
  local_ = is_local(image_.fd());
}

RawDisk::~RawDisk() = default;

Result<void> RawDisk::refresh_size() {
  const std::uint64_t bytes = VMM_TRY(image_.size());
  const auto rounded = checked_align_up(bytes, kSectorSize);
  if (!rounded) return fail(ErrorCode::kIo, "Disk image '{}' has no end", image_.name());
  bytes_ = bytes;
  limits_.size = *rounded;
  return {};
}

int RawDisk::problem_with(const BlockRequest& request) const {
  const bool transfer = request.op == BlockOp::kRead || request.op == BlockOp::kWrite;
  if (request.op == BlockOp::kFlush) return 0;
  const auto end = checked_add(request.offset, request.length);
  if (!end || *end > limits_.size || (request.offset | request.length) % kSectorSize != 0) {
    return EINVAL;
  }
  if (transfer && total(request.buffers) != request.length) return EINVAL;
  return limits_.read_only && request.op != BlockOp::kRead ? EROFS : 0;
}

void RawDisk::submit(BlockRequest request) {
  if (idle_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    idle_.push_back(operations_.back().get());
  }
  Operation& op = *idle_.back();
  idle_.pop_back();
  op.owner = this;
  op.request = std::move(request);
  op.done = 0;
  op.error = 0;
  op.sync_error = 0;
  start(op);
}

void RawDisk::start(Operation& op) {
  if (const int error = problem_with(op.request); error != 0) return nothing(op, error);
  switch (op.request.op) {
    case BlockOp::kRead:
    case BlockOp::kWrite:
      return op.request.length == 0 ? nothing(op, 0) : transfer(op);
    case BlockOp::kFlush:
      if (flush_error_ != 0 || limits_.read_only) return nothing(op, flush_error_);
      flush_waiting_.push_back(&op);
      if (flush_served_.empty()) begin_flush();
      return;
    case BlockOp::kDiscard:
      if (!limits_.discard || !can_punch_ || op.request.length == 0) return nothing(op, 0);
      return fallocate(op, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    case BlockOp::kWriteZeroes:
      return op.request.length == 0 ? nothing(op, 0) : write_zeroes(op);
  }
}

// One system call at a time, for all that waited for it: it makes durable what was done before it
// began. So a guest cannot make more and more of them, either.
void RawDisk::begin_flush() {
  flush_served_.swap(flush_waiting_);
  Operation& op = *flush_served_.front();
  op.op = IoOp::kSync;
  op.fd = image_.fd();
  engine_->submit(op);
}

void RawDisk::flushed(std::int64_t result) {
  if (result < 0 && flush_error_ == 0) flush_error_ = static_cast<int>(-result);
  const std::vector<Operation*> served = std::exchange(flush_served_, {});
  if (!flush_waiting_.empty()) begin_flush();
  for (Operation* const op : served) finish(*op, flush_error_);
}

void RawDisk::nothing(Operation& op, int error) {
  op.op = IoOp::kNothing;
  op.error = error;
  engine_->submit(op);
}

// The next system call of a read or write.
void RawDisk::transfer(Operation& op) {
  const BlockRequest& request = op.request;
  const std::uint64_t at = request.offset + op.done;
  const std::uint64_t left = request.length - op.done;
  op.op = request.op == BlockOp::kRead ? IoOp::kRead : IoOp::kWrite;
  op.fd = image_.fd();
  op.offset = at;
  op.bounced = false;
  op.cached = true;
  op.local = local_;
  op.durable = request.durable && op.sync_error == 0;
  op.buffers = request.buffers;
  if (op.done != 0 || request.buffers.size() > IOV_MAX) {
    op.part = rest_of(request.buffers, op.done, left);
    op.buffers = op.part;
  }
  // What does not fit direct I/O by its place on the disk goes through the page cache; what only
  // lies badly in memory is copied.
  if (image_.direct_fd() >= 0 && (at | left) % image_.direct_alignment() == 0) {
    op.fd = image_.direct_fd();
    op.cached = false;
    if (!aligned(op.buffers, image_.direct_alignment()) && !use_bounce(op)) {
      return nothing(op, ENOMEM);
    }
  }
  engine_->submit(op);
}

// Replaces the part under way by memory of our own.
bool RawDisk::use_bounce(Operation& op) {
  const std::uint64_t length = std::min(kBounceSize, op.request.length - op.done);
  op.bounce.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, kBounceSize)));
  if (op.bounce == nullptr) return false;
  if (op.op == IoOp::kWrite) {
    copy(op, length,
         [](std::byte* ours, void* theirs, std::size_t n) { std::memcpy(ours, theirs, n); });
  }
  op.part.assign(1, iovec{op.bounce.get(), length});
  op.buffers = op.part;
  op.bounced = true;
  return true;
}

// Calls one(ours, theirs, n) for each piece of the `length` bytes that are next.
template <typename Copy>
void RawDisk::copy(const Operation& op, std::uint64_t length, Copy one) {
  std::byte* ours = op.bounce.get();
  for (std::uint64_t copied = 0; copied < length;) {
    for (const iovec& piece : rest_of(op.request.buffers, op.done + copied, length - copied)) {
      one(ours, piece.iov_base, piece.iov_len);
      ours += piece.iov_len;
      copied += piece.iov_len;
    }
  }
}

void RawDisk::write_zeroes(Operation& op) {
  if (op.done == 0 && op.request.may_unmap && limits_.discard && can_punch_) {
    return fallocate(op, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  }
  if (op.done == 0 && can_zero_) return fallocate(op, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
  op.op = IoOp::kWrite;
  op.fd = image_.fd();
  op.offset = op.request.offset + op.done;
  op.bounced = false;
  op.cached = false;
  op.durable = false;
  op.part.clear();
  std::uint64_t left = op.request.length - op.done;
  while (left != 0 && op.part.size() < kZeroPagesAtOnce) {
    const std::uint64_t length = std::min<std::uint64_t>(left, kZeroPage.size());
    // Only read: a write's memory.
    op.part.push_back({const_cast<std::byte*>(kZeroPage.data()), length});
    left -= length;
  }
  op.buffers = op.part;
  engine_->submit(op);
}

void RawDisk::fallocate(Operation& op, int mode) {
  op.op = IoOp::kFallocate;
  op.fd = image_.fd();
  op.offset = op.request.offset;
  op.length = op.request.length;
  op.mode = mode;
  engine_->submit(op);
}

void RawDisk::io_done(IoTask& task, std::int64_t result) {
  auto& op = static_cast<Operation&>(task);
  // The kernel also cancels what a thread submitted that ends before it: a machine's, at a reset.
  if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) return engine_->submit(op);
  switch (op.op) {
    case IoOp::kNothing:
      return finish(op, op.error);
    case IoOp::kRead:
    case IoOp::kWrite:
      return transferred(op, result);
    case IoOp::kSync:
      return flushed(result);
    case IoOp::kFallocate:
      return allocated(op, result < 0 ? static_cast<int>(-result) : 0);
  }
}

void RawDisk::transferred(Operation& op, std::int64_t result) {
  if (result < 0) return transfer_failed(op, static_cast<int>(-result));
  const bool read = op.op == IoOp::kRead;
  if (result == 0) {
    // The end of the file: of an unfinished last sector, or where none was when we looked.
    if (!read || op.offset < bytes_) return finish(op, EIO);
    for (const iovec& rest : rest_of(op.request.buffers, op.done, kSectorSize)) {
      std::memset(rest.iov_base, 0, rest.iov_len);
    }
    return finish(op, 0);
  }
  const auto bytes = static_cast<std::uint64_t>(result);
  if (op.bounced && read) {
    copy(op, bytes,
         [](std::byte* ours, void* theirs, std::size_t n) { std::memcpy(theirs, ours, n); });
  }
  op.done += bytes;
  if (op.done < op.request.length) {
    return op.request.op == BlockOp::kWriteZeroes ? write_zeroes(op) : transfer(op);
  }
  if (not_supported(op.sync_error)) {
    limits_.durable_writes = false;
    op.request.op = BlockOp::kFlush;
    return start(op);
  }
  if (flush_error_ == 0) flush_error_ = op.sync_error;
  finish(op, op.request.durable ? flush_error_ : 0);
}

// A durable write fails like a write, of which only the guest has to hear, or like a flush, which
// may have been told here of what others wrote. The same write without the flag tells which. A file
// system that does not know the flag gets a flush.
void RawDisk::transfer_failed(Operation& op, int error) {
  if (op.op != IoOp::kWrite || !op.durable) return finish(op, error);
  op.sync_error = error;
  transfer(op);
}

void RawDisk::allocated(Operation& op, int error) {
  const bool punched = (op.mode & FALLOC_FL_PUNCH_HOLE) != 0;
  if (!not_supported(error)) return finish(op, error);
  (punched ? can_punch_ : can_zero_) = false;
  return op.request.op == BlockOp::kDiscard ? finish(op, 0) : write_zeroes(op);
}

void RawDisk::finish(Operation& op, int error) {
  BlockClient* const client = op.request.client;
  const std::uint64_t tag = op.request.tag;
  op.bounce.reset();
  op.request.buffers.clear();
  idle_.push_back(&op);
  if (client != nullptr) client->block_done(tag, error);
}

}  // namespace vmm::block

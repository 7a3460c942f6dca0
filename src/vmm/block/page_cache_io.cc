#include "vmm/block/page_cache_io.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace vmm::block {

namespace {

// Of a copy, on a slow and busy host: a millisecond, and one more for each MiB.
StallBudget::Duration work_of(std::uint64_t bytes) {
  return std::chrono::microseconds(1000 + bytes / 1024);
}

}  // namespace

std::optional<std::int64_t> PageCacheIo::transfer(const IoTask& task) {
  if (!task.cached) return std::nullopt;
  if (task.op == IoOp::kRead) return read(task);
  if (task.op == IoOp::kWrite) return write(task);
  return std::nullopt;
}

// What is in memory of it.
std::optional<std::int64_t> PageCacheIo::read(const IoTask& task) {
  if (!can_read_) return std::nullopt;
  if (untried_ != 0) {
    --untried_;
    return std::nullopt;
  }
  const auto count = static_cast<int>(task.buffers.size());
  const ssize_t got =
      ::preadv2(task.fd, task.buffers.data(), count, static_cast<off_t>(task.offset), RWF_NOWAIT);
  if (got > 0) {
    after_miss_ = 1;
    return got;
  }
  if (got < 0 && (errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) {
    can_read_ = false;  // not every file system
  }
  untried_ = after_miss_;
  after_miss_ = std::min(2 * after_miss_, kMostUntried);
  return std::nullopt;
}

// Few file systems know RWF_NOWAIT for writes, and where they do not io_uring gives each write to a
// thread of the kernel's, which takes ten times as long as the copy.
std::optional<std::int64_t> PageCacheIo::write(const IoTask& task) {
  if (!task.local || task.durable) return std::nullopt;
  std::uint64_t bytes = 0;
  for (const iovec& buffer : task.buffers) bytes += buffer.iov_len;
  const auto begin = now_();
  if (bytes > left_ || !waiting_.allows(begin)) return std::nullopt;
  left_ -= bytes;
  const ssize_t put =
      ::pwritev2(task.fd, task.buffers.data(), static_cast<int>(task.buffers.size()),
                 static_cast<off_t>(task.offset), 0);
  waiting_.spent(begin, now_(), work_of(bytes));
  if (put <= 0) return std::nullopt;
  return put;
}

}  // namespace vmm::block

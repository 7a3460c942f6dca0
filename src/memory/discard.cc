#include "memory/discard.h"

#include <sys/mman.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cerrno>

#include "base/size.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = 4096;

// Bytes of a page of the backing.
std::uint64_t unit_of(const GuestRegion& region) {
  struct statfs status {};
  if (region.fd() < 0 || ::fstatfs(region.fd(), &status) != 0) return kPage;
  return std::max<std::uint64_t>(kPage, static_cast<std::uint64_t>(status.f_bsize));
}

// The part of a region; both ends of the region lie at whole pages.
Result<std::uint64_t> discard(const GuestRegion& region, std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t unit = unit_of(region);
  const std::uint64_t begin = align_down(offset + unit - 1, unit);
  const std::uint64_t end = align_down(offset + size, unit);
  if (begin >= end) return std::uint64_t{0};
  // A shared file keeps what is only unmapped: its pages have to be punched out.
  region.mark_written(begin, end - begin);
  const int advice = region.fd() >= 0 ? MADV_REMOVE : MADV_DONTNEED;
  while (::madvise(region.hva() + begin, end - begin, advice) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    return fail_errno(errno, "Give {} of guest memory back to the host", format_size(end - begin));
  }
  return end - begin;
}

}  // namespace

Result<std::uint64_t> discard(const GuestMemory& memory, const GpaRange& range) {
  if (!memory.contains(range)) {
    return fail(ErrorCode::kOutOfRange, "Discard guest memory {}: not all of it is RAM", range);
  }
  std::uint64_t gone = 0;
  for (const GuestRegion& region : memory.regions()) {
    const Gpa begin = std::max(range.base(), region.range().base());
    const Gpa end = std::min(range.end(), region.range().end());
    if (begin >= end) continue;
    gone +=
        VMM_TRY(discard(region, begin.offset_from(region.range().base()), end.offset_from(begin)));
  }
  return gone;
}

}  // namespace vmm

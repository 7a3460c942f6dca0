#include "memory/guest_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/size.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHugePage = MiB(2);

#ifndef MADV_POPULATE_WRITE
constexpr int kMadvPopulateWrite = 23;  // Linux 5.14, <linux/mman.h>
#else
constexpr int kMadvPopulateWrite = MADV_POPULATE_WRITE;
#endif

Result<UniqueFd> backing_file(GpaRange range, MemoryBacking backing) {
  if (backing == MemoryBacking::kAnonymous) return UniqueFd();
  const unsigned flags =
      MFD_CLOEXEC | MFD_ALLOW_SEALING | (backing == MemoryBacking::kHugetlbfs ? MFD_HUGETLB : 0U);
  UniqueFd fd(::memfd_create("vmm-guest-memory", flags));
  if (!fd) return fail_errno(errno, "Create a memfd for guest memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(range.size())) != 0) {
    return fail_errno(errno, "Size a memfd of {} for guest memory", format_size(range.size()));
  }
  // Whoever else maps it can write to it, but not take its pages from under us.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "Seal a memfd for guest memory");
  }
  return fd;
}

// Maps `range` where host-virtual and guest-physical addresses agree within a huge page: only then
// can the host back the guest by huge pages in its second-level page tables, too.
void* map_aligned(GpaRange range, int flags, int fd, std::uint64_t offset = 0) {
  const std::uint64_t size = range.size();
  const auto from = static_cast<off_t>(offset);
  if (size < kHugePage) return ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, from);
  const auto room = checked_add(size, kHugePage);
  if (!room) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* const reserved =
      ::mmap(nullptr, *room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  std::byte* const begin = static_cast<std::byte*>(reserved);
  const auto at = reinterpret_cast<std::uintptr_t>(reserved);
  const std::uint64_t before = (range.base().value - at) % kHugePage;
  void* const mapped =
      ::mmap(begin + before, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, from);
  if (mapped == MAP_FAILED) {
    const int errnum = errno;
    ::munmap(reserved, *room);
    errno = errnum;
    return MAP_FAILED;
  }
  if (before != 0) ::munmap(begin, before);
  ::munmap(begin + before + size, kHugePage - before);  // never empty: before < kHugePage
  return mapped;
}

}  // namespace

Result<GuestRegion> GuestRegion::create(GpaRange range, const Options& options) {
  const bool huge = options.backing == MemoryBacking::kHugetlbfs;
  const std::uint64_t unit = huge ? kHugePage : kPage;
  if (range.empty() || range.base().value % unit != 0 || range.size() % unit != 0) {
    return fail(ErrorCode::kBadConfig, "Guest memory {} is not a multiple of {}", range,
                format_size(unit));
  }
  UniqueFd fd = VMM_TRY(backing_file(range, options.backing));
  int flags = fd ? MAP_SHARED : (MAP_PRIVATE | MAP_ANONYMOUS);
  if (!options.reserve) flags |= MAP_NORESERVE;
  void* const address = map_aligned(range, flags, fd ? fd.get() : -1);
  if (address == MAP_FAILED) {
    return fail_errno(errno, "Map {} of guest memory at GPA {}{}", format_size(range.size()), range,
                      huge ? " from huge pages (see /proc/sys/vm/nr_hugepages)" : "");
  }
  // Advice that the kernel does not know changes nothing that the guest could see: its failure is
  // not an error.
  (void)::madvise(address, range.size(), MADV_DONTDUMP);
  if (options.transparent_huge_pages && !huge) {
    (void)::madvise(address, range.size(), MADV_HUGEPAGE);
  }
  return GuestRegion(range, static_cast<std::byte*>(address), std::move(fd));
}

Result<GuestRegion> GuestRegion::map_private(GpaRange range, int file, std::uint64_t offset) {
  if (range.empty() || range.base().value % kPage != 0 || range.size() % kPage != 0 ||
      offset % kPage != 0) {
    return fail(ErrorCode::kBadConfig, "Guest memory {} is not a multiple of {}", range,
                format_size(kPage));
  }
  void* const address = map_aligned(range, MAP_PRIVATE | MAP_NORESERVE, file, offset);
  if (address == MAP_FAILED) {
    return fail_errno(errno, "Map {} of guest memory at GPA {} from a snapshot",
                      format_size(range.size()), range);
  }
  (void)::madvise(address, range.size(), MADV_DONTDUMP);
  return GuestRegion(range, static_cast<std::byte*>(address), UniqueFd());
}

GuestRegion::GuestRegion(GuestRegion&& other) noexcept
    : range_(other.range_),
      hva_(std::exchange(other.hva_, nullptr)),
      fd_(std::move(other.fd_)),
      written_(std::move(other.written_)) {}

GuestRegion& GuestRegion::operator=(GuestRegion&& other) noexcept {
  if (this != &other) {
    if (hva_ != nullptr) ::munmap(hva_, range_.size());
    range_ = other.range_;
    hva_ = std::exchange(other.hva_, nullptr);
    fd_ = std::move(other.fd_);
    written_ = std::move(other.written_);
  }
  return *this;
}

GuestRegion::~GuestRegion() {
  if (hva_ != nullptr) ::munmap(hva_, range_.size());
}

void GuestRegion::prefer_huge_pages(std::uint64_t offset, std::uint64_t size) const {
  const auto end = checked_add(offset, size);
  if (end && *end <= range_.size()) (void)::madvise(hva_ + offset, size, MADV_HUGEPAGE);
}

Result<void> GuestRegion::populate(std::uint64_t offset, std::uint64_t size) const {
  const auto end = checked_add(offset, size);
  if (!end || *end > range_.size()) {
    return fail(ErrorCode::kOutOfRange, "Populate {:#x}+{:#x} of guest memory {}", offset, size,
                range_);
  }
  while (::madvise(hva_ + offset, size, kMadvPopulateWrite) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    return fail_errno(errno, "Populate {} of guest memory", format_size(size));
  }
  return {};
}

}  // namespace vmm

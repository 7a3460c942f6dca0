#include "memory/guest_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/size.h"
#include "memory/aligned_map.h"

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

}  // namespace

Result<GuestRegion> GuestRegion::create(GpaRange range, const Options& options) {
  GuestRegion region = VMM_TRY(map(range, PROT_READ | PROT_WRITE, options));
  region.written_ = std::make_unique<DirtyPages>(range.size());
  return region;
}

Result<GuestRegion> GuestRegion::map(GpaRange range, int protection, const Options& options) {
  const bool huge = options.backing == MemoryBacking::kHugetlbfs;
  const std::uint64_t unit = huge ? kHugePage : kPage;
  if (range.empty() || range.base().value % unit != 0 || range.size() % unit != 0) {
    return fail(ErrorCode::kBadConfig, "Guest memory {} is not a multiple of {}", range,
                format_size(unit));
  }
  UniqueFd fd = VMM_TRY(backing_file(range, options.backing));
  int flags = fd ? MAP_SHARED : (MAP_PRIVATE | MAP_ANONYMOUS);
  if (!options.reserve) flags |= MAP_NORESERVE;
  void* const address =
      map_aligned(range.base().value, range.size(), protection, flags, fd ? fd.get() : -1, 0);
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
  void* const address = map_aligned(range.base().value, range.size(), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_NORESERVE, file, offset);
  if (address == MAP_FAILED) {
    return fail_errno(errno, "Map {} of guest memory at GPA {} from a snapshot",
                      format_size(range.size()), range);
  }
  (void)::madvise(address, range.size(), MADV_DONTDUMP);
  GuestRegion region(range, static_cast<std::byte*>(address), UniqueFd());
  region.written_ = std::make_unique<DirtyPages>(range.size());
  return region;
}

Result<GuestRegion> GuestRegion::reserve(GpaRange range, std::uint64_t block_size,
                                         const Options& options) {
  if (!std::has_single_bit(block_size) || block_size < kPage || range.size() % block_size != 0) {
    return fail(ErrorCode::kBadConfig, "Guest memory {} does not consist of blocks of {}", range,
                format_size(block_size));
  }
  GuestRegion region = VMM_TRY(map(range, PROT_NONE, options));
  region.blocks_ = std::make_unique<MemoryBlocks>(
      region.hva_, region.fd(), block_size, static_cast<std::size_t>(range.size() / block_size));
  return region;
}

Result<GuestRegion> GuestRegion::of_file(GpaRange range, std::shared_ptr<const FileMapping> file) {
  if (file == nullptr || range.size() != file->size() || range.base().value % kHugePage != 0) {
    return fail(ErrorCode::kBadConfig, "Guest memory {} is no place for its file", range);
  }
  GuestRegion region(range, file->hva(), UniqueFd());
  region.file_ = std::move(file);
  return region;
}

GuestRegion::GuestRegion(GuestRegion&& other) noexcept
    : range_(other.range_),
      hva_(std::exchange(other.hva_, nullptr)),
      fd_(std::move(other.fd_)),
      written_(std::move(other.written_)),
      blocks_(std::move(other.blocks_)),
      file_(std::move(other.file_)) {}

GuestRegion& GuestRegion::operator=(GuestRegion&& other) noexcept {
  if (this != &other) {
    unmap();
    range_ = other.range_;
    hva_ = std::exchange(other.hva_, nullptr);
    fd_ = std::move(other.fd_);
    written_ = std::move(other.written_);
    blocks_ = std::move(other.blocks_);
    file_ = std::move(other.file_);
  }
  return *this;
}

GuestRegion::~GuestRegion() { unmap(); }

// A file's mapping is its own to undo.
void GuestRegion::unmap() noexcept {
  if (hva_ != nullptr && !file_) ::munmap(hva_, range_.size());
}

Result<std::byte*> GuestRegion::enter(std::uint64_t offset, std::uint64_t size,
                                      BlockUse& use) const {
  if (file_) {
    return fail(ErrorCode::kOutOfRange, "Guest memory {} is a file's: it is only copied", range_);
  }
  if (blocks_ && !blocks_->enter(offset, size, use)) {
    return fail(ErrorCode::kOutOfRange, "Not all of {:#x}+{:#x} of guest memory {} is plugged",
                offset, size, range_);
  }
  return hva_ + offset;
}

namespace {

using CopyCall = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long,
                             unsigned long);

// The kernel copies: a page that is not there is an error of the call, and no signal.
bool copy_by_kernel(CopyCall call, std::byte* here, std::byte* there, std::size_t size) {
  const iovec local{here, size};
  const iovec remote{there, size};
  ssize_t done = -1;
  do {
    done = call(::getpid(), &local, 1, &remote, 1, 0);
  } while (done < 0 && errno == EINTR);
  return done >= 0 && static_cast<std::size_t>(done) == size;
}

}  // namespace

Result<void> GuestRegion::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  if (file_) {
    if (copy_by_kernel(::process_vm_readv, bytes.data(), hva_ + offset, bytes.size())) return {};
    return fail(ErrorCode::kIo, "Guest memory at {:#x} of {} is gone with its file's pages", offset,
                range_);
  }
  BlockUse use;
  std::memcpy(bytes.data(), VMM_TRY(enter(offset, bytes.size(), use)), bytes.size());
  return {};
}

Result<void> GuestRegion::write(std::uint64_t offset, std::span<const std::byte> bytes) const {
  if (read_only()) {
    return fail(ErrorCode::kOutOfRange, "Guest memory {} is read-only", range_);
  }
  if (file_) {
    // The call writes from `bytes`, whatever its parameter's type says.
    auto* const from = const_cast<std::byte*>(bytes.data());
    if (copy_by_kernel(::process_vm_writev, from, hva_ + offset, bytes.size())) return {};
    return fail(ErrorCode::kIo, "Guest memory at {:#x} of {} is gone with its file's pages", offset,
                range_);
  }
  BlockUse use;
  std::byte* const to = VMM_TRY(enter(offset, bytes.size(), use));
  mark_written(offset, bytes.size());
  std::memcpy(to, bytes.data(), bytes.size());
  return {};
}

Result<void> GuestRegion::fill(std::uint64_t offset, std::uint64_t size, std::byte value) const {
  if (file_) {
    std::array<std::byte, kPage> page;
    page.fill(value);
    for (std::uint64_t done = 0; done < size;) {
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(size - done, page.size()));
      VMM_TRY(write(offset + done, std::span(page).first(n)));
      done += n;
    }
    return {};
  }
  BlockUse use;
  std::byte* const to = VMM_TRY(enter(offset, size, use));
  mark_written(offset, size);
  std::memset(to, std::to_integer<int>(value), size);
  return {};
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

// One mmap of the host that backs one range of guest-physical memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "memory/dirty_pages.h"

namespace vmm {

// Where guest RAM comes from.
enum class MemoryBacking : std::uint8_t {
  kAnonymous,  // private anonymous pages: fastest to fault
  kMemfd,      // a shared memfd: other processes can map it
  kHugetlbfs,  // 2 MiB pages reserved by the host's administrator
};

// Sole owner of the mapping: unmaps on destruction, so it must outlive every memory slot and every
// view of it. Not populated until touched. From 2 MiB on, host-virtual and guest-physical addresses
// are equal modulo 2 MiB. The contents stay out of the host's core dumps (MADV_DONTDUMP).
class GuestRegion {
 public:
  struct Options {
    MemoryBacking backing = MemoryBacking::kAnonymous;
    bool transparent_huge_pages = false;  // advise THP; kAnonymous and kMemfd only
    bool reserve =
        false;  // count against the host's overcommit limit now rather than at the first touch
  };

  // `range` is page-aligned and not empty (2 MiB-aligned for kHugetlbfs). Errors: kResource with
  // the sizes, kBadConfig.
  static Result<GuestRegion> create(GpaRange range, const Options& options);

  // The contents are those of `file` from `offset` on, a multiple of 4 KiB, and come when they are
  // touched; what is written stays here. The file has to keep its size and contents. Errors:
  // kResource, kBadConfig.
  static Result<GuestRegion> map_private(GpaRange range, int file, std::uint64_t offset);

  GuestRegion(GuestRegion&& other) noexcept;
  GuestRegion& operator=(GuestRegion&& other) noexcept;
  ~GuestRegion();

  const GpaRange& range() const noexcept { return range_; }
  // Host-virtual address of the first byte. Only for memory slots and for GuestMemory, which checks
  // bounds.
  std::byte* hva() const noexcept { return hva_; }
  // The memfd or hugetlbfs file, or -1.
  int fd() const noexcept { return fd_.get(); }
  // What this process has written since the marks were taken last.
  DirtyPages& written() const noexcept { return *written_; }

  // Advice, for a part that will be used densely: back it by huge pages where the host can
  // (MADV_HUGEPAGE). Page-aligned; any thread.
  void prefer_huge_pages(std::uint64_t offset, std::uint64_t size) const;
  // Populates [offset, offset + size) with writable pages (MADV_POPULATE_WRITE). Any thread.
  Result<void> populate(std::uint64_t offset, std::uint64_t size) const;

 private:
  GuestRegion(GpaRange range, std::byte* hva, UniqueFd fd)
      : range_(range),
        hva_(hva),
        fd_(std::move(fd)),
        written_(std::make_unique<DirtyPages>(range.size())) {}
  GpaRange range_;
  std::byte* hva_ = nullptr;
  UniqueFd fd_;
  std::unique_ptr<DirtyPages> written_;
};

}  // namespace vmm

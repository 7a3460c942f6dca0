// One mapping of the host that backs one range of guest-physical memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "memory/dirty_pages.h"
#include "memory/file_mapping.h"
#include "memory/memory_blocks.h"

namespace vmm {

// Where guest RAM comes from.
enum class MemoryBacking : std::uint8_t {
  kAnonymous,  // private anonymous pages: fastest to fault
  kMemfd,      // a shared memfd: other processes can map it
  kHugetlbfs,  // 2 MiB pages reserved by the host's administrator
};

// What a region is, and how far this process may rely on its pages.
enum class RegionKind : std::uint8_t {
  kRam,     // there from the start to the end
  kBlocks,  // comes and goes in blocks (MemoryBlocks)
  kFile,    // a file's, whose pages may vanish: copied by the kernel, never touched in place
};

// Owner of the mapping (with others, when it is a file's): unmaps on destruction, so it must
// outlive every memory slot and every view of it. Not populated until touched. From 2 MiB on,
// host-virtual and guest-physical addresses are equal modulo 2 MiB. The contents stay out of the
// host's core dumps (MADV_DONTDUMP).
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
  // Address space for memory that is plugged later, in blocks of `block_size`, a power of two that
  // divides the range. Errors as above.
  static Result<GuestRegion> reserve(GpaRange range, std::uint64_t block_size,
                                     const Options& options);
  // The range is as large as the file, and starts at a multiple of 2 MiB. Errors: kBadConfig.
  static Result<GuestRegion> of_file(GpaRange range, std::shared_ptr<const FileMapping> file);

  // The contents are those of `file` from `offset` on, a multiple of 4 KiB, and come when they are
  // touched; what is written stays here. The file has to keep its size and contents. Errors:
  // kResource, kBadConfig.
  static Result<GuestRegion> map_private(GpaRange range, int file, std::uint64_t offset);

  GuestRegion(GuestRegion&& other) noexcept;
  GuestRegion& operator=(GuestRegion&& other) noexcept;
  ~GuestRegion();

  const GpaRange& range() const noexcept { return range_; }
  RegionKind kind() const noexcept {
    return blocks_ ? RegionKind::kBlocks : file_ ? RegionKind::kFile : RegionKind::kRam;
  }
  bool read_only() const noexcept { return file_ && file_->read_only(); }
  // Of a kBlocks region, else null; lives as long as the mapping, wherever the region is moved.
  MemoryBlocks* blocks() const noexcept { return blocks_.get(); }
  // Host-virtual address of the first byte. Only for memory slots and for GuestMemory, which checks
  // bounds.
  std::byte* hva() const noexcept { return hva_; }
  // The memfd or hugetlbfs file, or -1.
  int fd() const noexcept { return fd_.get(); }
  // What this process has written since the marks were taken last; null where it is not noted, in
  // all but kRam.
  DirtyPages* written() const noexcept { return written_.get(); }
  // Notes that bytes are being written in place, as write() and fill() do by themselves.
  void mark_written(std::uint64_t offset, std::uint64_t size) const noexcept {
    if (written_) written_->mark(offset, size);
  }

  // Copies bytes at an offset of the region, which has as many. Errors: kOutOfRange where nothing
  // is plugged or the region is read-only; kIo where a file has lost its pages: an unknown part was
  // copied then.
  Result<void> read(std::uint64_t offset, std::span<std::byte> bytes) const;
  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  Result<void> fill(std::uint64_t offset, std::uint64_t size, std::byte value) const;
  // The bytes in place; `use` keeps them there. Errors: kOutOfRange where nothing is plugged, and
  // for a file's.
  Result<std::byte*> enter(std::uint64_t offset, std::uint64_t size, BlockUse& use) const;

  // Advice, for a part that will be used densely: back it by huge pages where the host can
  // (MADV_HUGEPAGE). Page-aligned; any thread.
  void prefer_huge_pages(std::uint64_t offset, std::uint64_t size) const;
  // Populates [offset, offset + size) with writable pages (MADV_POPULATE_WRITE). Any thread.
  Result<void> populate(std::uint64_t offset, std::uint64_t size) const;

 private:
  GuestRegion(GpaRange range, std::byte* hva, UniqueFd fd)
      : range_(range), hva_(hva), fd_(std::move(fd)) {}
  static Result<GuestRegion> map(GpaRange range, int protection, const Options& options);
  void unmap() noexcept;

  GpaRange range_;
  std::byte* hva_ = nullptr;
  UniqueFd fd_;
  std::unique_ptr<DirtyPages> written_;
  std::unique_ptr<MemoryBlocks> blocks_;
  std::shared_ptr<const FileMapping> file_;
};

}  // namespace vmm

// The RAM of a snapshot: a file, of memory or on a disk, that has the pages which are not all
// zeroes, each at its place.
//
// Regions lie one behind the other; what no page was written for is a hole. So a machine can map it
// privately at once and read each page when it is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "memory/guest_memory.h"
#include "vmm/snapshot/page_set.h"

namespace vmm {

class FrozenMemory;

// Immutable once made. Any thread.
class RamImage {
 public:
  static constexpr std::uint64_t kPage = PageSet::kPage;

  // Neighbouring pages that were written, and their CRC-32C when that was wanted.
  struct Extent {
    std::uint64_t first = 0;
    std::uint32_t pages = 0;
    std::uint32_t crc = 0;
  };
  // As many pages as an extent has at most.
  static constexpr std::uint32_t kMostPages = 256;

  // An anonymous file for an image of `bytes`.
  static Result<UniqueFd> create_memory_file(std::uint64_t bytes);

  struct CopyOptions {
    std::uint64_t offset = 0;  // where in the file the image begins; a multiple of 4 KiB
    bool checksums = false;
    // Asked now and then; true: give up with kCancelled.
    std::function<bool()> cancelled = {};
  };
  // Copies a guest's memory, which nobody writes meanwhile, into a file that is empty there. `base`
  // is what the memory was mapped from, or nullptr. Errors: kResource or kIo when the file takes no
  // more; kCancelled.
  static Result<RamImage> copy_of(const GuestMemory& memory, const RamImage* base, UniqueFd file,
                                  CopyOptions options);
  // The same of a guest that goes on: `frozen` is its memory at the moment that is wanted. Without
  // checksums.
  static Result<RamImage> copy_of(const FrozenMemory& frozen, const RamImage* base, UniqueFd file,
                                  CopyOptions options);
  // Of a guest's memory the pages that are not as in `earlier`, all zeroes or not: on() makes them
  // whole again. Pages that `candidates` lacks are as they were; without it every page may have
  // changed. Errors: as above; kBadConfig when the regions are not the same.
  static Result<RamImage> changes_of(const GuestMemory& memory, const RamImage* base,
                                     const RamImage& earlier, const PageSet* candidates,
                                     UniqueFd file, CopyOptions options);
  // The image, in memory, of which this holds what has changed since `earlier`; with checksums.
  // Errors: as above.
  Result<RamImage> on(const RamImage& earlier) const;
  // The same from an image.
  Result<RamImage> copy(UniqueFd file, CopyOptions options) const;

  // What a file says that it has. `extents` are in order, and inside of `regions`.
  static Result<RamImage> open(UniqueFd file, std::uint64_t offset, std::vector<GpaRange> regions,
                               std::vector<Extent> extents);

  const std::vector<GpaRange>& regions() const noexcept { return regions_; }
  const std::vector<Extent>& extents() const noexcept { return extents_; }
  const PageSet& pages() const noexcept { return pages_; }
  std::uint64_t bytes() const noexcept { return pages_.pages() * kPage; }

  // Guest memory that begins as this, page by page.
  Result<GuestMemory> map() const;
  // The contents of a page that pages() has.
  std::span<const std::byte, kPage> page(std::uint64_t number) const noexcept;
  // Where two images have other contents, in whole pages, neighbours joined. Errors: kBadConfig
  // when their regions are not the same.
  Result<std::vector<GpaRange>> difference(const RamImage& other) const;
  // Reads everything and compares. Errors: kBadState naming the first page that is not as it was.
  Result<void> verify() const;

  // The first page of `which` that `memory`, which has the same regions, has with other contents.
  std::optional<Gpa> difference(const GuestMemory& memory, const PageSet& which) const noexcept;
  // Makes `memory`, which has the same regions, as this in the pages of `which`.
  void put_back(const GuestMemory& memory, const PageSet& which) const noexcept;

 private:
  RamImage() = default;
  Result<void> open_view();
  Result<void> check_regions(const RamImage& other) const;
  // Calls fn(page number, its bytes in `memory`, its GPA) for each of `which`, in order.
  template <typename Fn>
  void walk_pages_of(const GuestMemory& memory, const PageSet& which, Fn&& fn) const;
  // What the page holds, whether it is stored or not.
  std::span<const std::byte, kPage> contents(std::uint64_t number) const noexcept;

  struct View {
    View(void* a, std::size_t s) : address(a), size(s) {}
    ~View();
    void* address;
    std::size_t size;
  };
  std::shared_ptr<const UniqueFd> file_;
  std::shared_ptr<const View> view_;
  std::uint64_t offset_ = 0;
  std::vector<GpaRange> regions_;
  std::vector<Extent> extents_;
  PageSet pages_;
};

}  // namespace vmm

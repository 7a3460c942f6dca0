// The RAM of a snapshot: a file, of memory or on a disk, that has the pages which are not all
// zeroes, each at its place; that of an increment: such files one over the other, each with what
// has changed since the one below.
//
// Regions lie one behind the other; what no page was written for is a hole. So a machine can map it
// privately at once and read each page when it is needed: the lowest file whole, and over it, run
// by run, what the others have.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "memory/guest_memory.h"
#include "vmm/snapshot/page_run.h"
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
  // So many mappings over the lowest file a machine's memory has at most: every one is a part of
  // the process's address space, of which there may be 65530 (vm.max_map_count).
  static constexpr std::size_t kMostMappings = 8192;

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
  // The image of which this, of one file, holds what has changed since `earlier`. Nothing is read,
  // unless it came to more than `most` mappings: then all is verified, and copied to a file in
  // memory. Errors: as above; kBadState as verify().
  Result<RamImage> on(const RamImage& earlier, std::size_t most = kMostMappings) const;
  // The same from an image.
  Result<RamImage> copy(UniqueFd file, CopyOptions options) const;

  // What a file says that it has. `extents` are in order, and inside of `regions`. Errors call the
  // file `name`, when it has one.
  static Result<RamImage> open(UniqueFd file, std::uint64_t offset, std::vector<GpaRange> regions,
                               std::vector<Extent> extents, std::string name = {});

  const std::vector<GpaRange>& regions() const noexcept { return regions_; }
  // Of the topmost file.
  const std::vector<Extent>& extents() const noexcept { return layers_.back().extents; }
  // What pages() has, in order, and where each page comes from.
  const std::vector<PageRun>& runs() const noexcept { return runs_; }
  // Which runs are mapped over the lowest file. They reach across pages that no file has.
  std::vector<PageRun> mappings() const;
  const PageSet& pages() const noexcept { return pages_; }
  std::uint64_t bytes() const noexcept { return pages_.pages() * kPage; }

  // Guest memory that begins as this, page by page. Where this process cannot have that many
  // mappings more it is a mapping of a copy. Errors: kResource.
  Result<GuestMemory> map() const;
  // The contents of a page that pages() has.
  std::span<const std::byte, kPage> page(std::uint64_t number) const noexcept;
  // Where two images have other contents, in whole pages, neighbours joined. Errors: kBadConfig
  // when their regions are not the same.
  Result<std::vector<GpaRange>> difference(const RamImage& other) const;
  // What of one file has one checksum.
  struct Piece {
    std::uint32_t layer = 0;  // the file: 0 is the lowest
    Extent extent = {};       // some of its pages may be a later file's
  };
  // Where a page comes from that pages() has.
  Piece piece_of(std::uint64_t number) const noexcept;
  // Reads all pages of a piece from its file, at once, into the first bytes of `bytes`, which has
  // room for kMostPages, and compares their checksum where the file has any. No other way in is
  // safe from a file that was cut: the others touch a mapping. Errors: kBadState, kIo, naming the
  // file.
  Result<void> read(const Piece& piece, std::span<std::byte> bytes) const;
  // Calls fn(PageRun) for what of the piece no later file replaces, in order.
  template <typename Fn>
  void for_each_run_of(const Piece& piece, Fn&& fn) const {
    const std::uint64_t end = piece.extent.first + piece.extent.pages;
    for (auto run = run_at(piece.extent.first); run != runs_.end() && run->first < end; ++run) {
      if (run->layer != piece.layer) continue;
      const std::uint64_t first = std::max(run->first, piece.extent.first);
      fn(PageRun{.first = first, .pages = std::min(run->end(), end) - first, .layer = run->layer});
    }
  }
  // Reads all that the files say they have and compares. Errors: kBadState naming the first page
  // that is not as it was, and its file.
  Result<void> verify() const;

  // The first page of `which` that `memory`, which has the same regions, has with other contents.
  std::optional<Gpa> difference(const GuestMemory& memory, const PageSet& which) const noexcept;
  // Makes `memory`, which has the same regions, as this in the pages of `which`.
  void put_back(const GuestMemory& memory, const PageSet& which) const noexcept;

 private:
  struct View {
    View(void* a, std::size_t s) : address(a), size(s) {}
    ~View();
    void* address;
    std::size_t size;
  };
  // One file, which images on one another share.
  struct Layer {
    std::shared_ptr<const UniqueFd> file = {};
    std::shared_ptr<const View> view = {};
    std::uint64_t offset = 0;
    std::vector<Extent> extents = {};
    bool checksums = false;  // the extents have them
    std::string name = {};

    const std::byte* page(std::uint64_t number) const noexcept {
      return static_cast<const std::byte*>(view->address) + number * kPage;
    }
  };

  RamImage() = default;
  // Of one file that is still to be written, by the extents of the first layer.
  RamImage(std::vector<GpaRange> regions, std::uint64_t offset, bool checksums);
  // The file has been written, and does not change any more.
  Result<void> finish(UniqueFd file);
  Result<void> map_over(const GuestRegion& region, std::uint64_t first,
                        const std::vector<PageRun>& mappings) const;
  Result<GuestMemory> map_files() const;
  Result<void> check_regions(const RamImage& other) const;
  // The first run that ends behind a page.
  std::vector<PageRun>::const_iterator run_at(std::uint64_t number) const noexcept;
  // Which file has a page that pages() has.
  const Layer& layer_of(std::uint64_t number) const noexcept;
  // Calls fn(page number, its bytes in `memory`, its GPA) for each of `which`, in order.
  template <typename Fn>
  void walk_pages_of(const GuestMemory& memory, const PageSet& which, Fn&& fn) const;
  // What the page holds, whether it is stored or not.
  std::span<const std::byte, kPage> contents(std::uint64_t number) const noexcept;

  std::vector<GpaRange> regions_;
  std::vector<Layer> layers_;  // the lowest first; extents() is the last one's
  std::vector<PageRun> runs_;
  PageSet pages_;
};

}  // namespace vmm

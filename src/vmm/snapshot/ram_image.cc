#include "vmm/snapshot/ram_image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/crc32c.h"
#include "base/size.h"
#include "vmm/snapshot/frozen_memory.h"
#include "vmm/snapshot/zero_page.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = RamImage::kPage;

// /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst): a word a page.
constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;

// The others lie above it, and no machine that has them is saved.
std::span<const GuestRegion> ram_of(const GuestMemory& memory) {
  const std::span<const GuestRegion> all = memory.regions();
  const auto end = std::find_if(all.begin(), all.end(), [](const GuestRegion& region) {
    return region.kind() != RegionKind::kRam;
  });
  return all.first(static_cast<std::size_t>(end - all.begin()));
}

using Pieces = std::vector<FrozenMemory::Piece>;

Pieces pieces_of(const GuestMemory& memory) {
  Pieces pieces;
  for (const GuestRegion& region : ram_of(memory)) {
    pieces.push_back({.range = region.range(), .hva = region.hva(), .file = region.fd()});
  }
  return pieces;
}

std::vector<GpaRange> ranges_of(const Pieces& pieces) {
  std::vector<GpaRange> ranges;
  for (const auto& piece : pieces) ranges.push_back(piece.range);
  return ranges;
}

std::uint64_t pages_of(std::span<const GpaRange> ranges) {
  std::uint64_t pages = 0;
  for (const GpaRange& range : ranges) pages += range.size() / kPage;
  return pages;
}

// Finds pages that may be other than zeroes, without touching those that were never touched:
// reading them would make the host give each a page table entry, or a page.
class TouchedPages {
 public:
  // In this process, or in one that has the same memory.
  explicit TouchedPages(const RamImage* base, const std::string& process = "self")
      : base_(base),
        pagemap_(::open(fmt::format("/proc/{}/pagemap", process).c_str(), O_RDONLY | O_CLOEXEC)) {}

  // Those of a piece whose first page has the number `first` in `pages`.
  void add(const FrozenMemory::Piece& piece, std::uint64_t first, PageSet& pages) const {
    if (piece.file >= 0 && add_data(piece, first, pages)) return;
    add_mapped(piece, first, pages);
    if (base_ == nullptr) return;
    for (std::uint64_t page = first; page < first + piece.range.size() / kPage; ++page) {
      if (base_->pages().has(page)) pages.add(page);
    }
  }

 private:
  // A shared file may have been written through another mapping.
  static bool add_data(const FrozenMemory::Piece& piece, std::uint64_t first, PageSet& pages) {
    const auto size = static_cast<off_t>(piece.range.size());
    for (off_t at = 0; at < size;) {
      const off_t data = ::lseek(piece.file, at, SEEK_DATA);
      if (data < 0) return errno == ENXIO;  // the rest is a hole
      const off_t hole = ::lseek(piece.file, data, SEEK_HOLE);
      if (hole < 0) return false;
      for (off_t page = data / static_cast<off_t>(kPage);
           page * static_cast<off_t>(kPage) < std::min(hole, size); ++page) {
        pages.add(first + static_cast<std::uint64_t>(page));
      }
      at = hole;
    }
    return true;
  }

  void add_mapped(const FrozenMemory::Piece& piece, std::uint64_t first, PageSet& pages) const {
    const std::uint64_t count = piece.range.size() / kPage;
    const std::uint64_t begin = reinterpret_cast<std::uintptr_t>(piece.hva) / kPage;
    std::array<std::uint64_t, 4096> words;
    for (std::uint64_t at = 0; at < count; at += words.size()) {
      const std::uint64_t n = std::min<std::uint64_t>(words.size(), count - at);
      const auto bytes = static_cast<std::size_t>(n * sizeof(std::uint64_t));
      const auto from = static_cast<off_t>((begin + at) * sizeof(std::uint64_t));
      const bool known = pagemap_ && ::pread(pagemap_.get(), words.data(), bytes, from) ==
                                         static_cast<ssize_t>(bytes);
      for (std::uint64_t i = 0; i < n; ++i) {
        const bool there = !known || (words[static_cast<std::size_t>(i)] & (kPresent | kSwapped));
        if (there) pages.add(first + at + i);
      }
    }
  }

  const RamImage* base_;
  UniqueFd pagemap_;
};

constexpr std::array<std::byte, kPage> kZeroes{};

// Writes pages one after the other, neighbours together.
class Writer {
 public:
  Writer(int file, const RamImage::CopyOptions& options, PageSet& pages,
         std::vector<RamImage::Extent>& extents)
      : file_(file), options_(options), pages_(pages), extents_(extents) {}

  // A page that follows all before; one of zeroes is left out.
  Result<void> add(std::uint64_t number, const std::byte* page) {
    return is_zero_page(page) ? Result<void>() : add_any(number, page);
  }

  Result<void> add_any(std::uint64_t number, const std::byte* page) {
    const bool goes_on = count_ != 0 && count_ < RamImage::kMostPages &&
                         number == first_ + count_ && page == start_ + count_ * kPage;
    if (!goes_on) {
      VMM_TRY(flush());
      first_ = number;
      start_ = page;
    }
    ++count_;
    pages_.add(number);
    return {};
  }

  Result<void> flush() {
    if (count_ == 0) return {};
    if (options_.cancelled && options_.cancelled()) {
      return fail(ErrorCode::kCancelled, "Somebody asked for an end");
    }
    const std::span<const std::byte> bytes(start_, static_cast<std::size_t>(count_ * kPage));
    VMM_TRY(write(bytes, options_.offset + first_ * kPage));
    extents_.push_back({.first = first_,
                        .pages = static_cast<std::uint32_t>(count_),
                        .crc = options_.checksums ? crc32c(bytes) : 0});
    count_ = 0;
    return {};
  }

 private:
  Result<void> write(std::span<const std::byte> bytes, std::uint64_t at) const {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        return fail_errno(n < 0 ? errno : EIO, "Write {} of guest memory",
                          format_size(bytes.size()));
      }
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      at += static_cast<std::uint64_t>(n);
    }
    return {};
  }

  int file_;
  const RamImage::CopyOptions& options_;
  PageSet& pages_;
  std::vector<RamImage::Extent>& extents_;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
  const std::byte* start_ = nullptr;
};

}  // namespace

RamImage::View::~View() { ::munmap(address, size); }

RamImage::RamImage(std::vector<GpaRange> regions, std::uint64_t offset, bool checksums)
    : regions_(std::move(regions)), layers_(1), pages_(pages_of(regions_)) {
  layers_.back().offset = offset;
  layers_.back().checksums = checksums;
}

Result<UniqueFd> RamImage::create_memory_file(std::uint64_t bytes) {
  UniqueFd file(::memfd_create("vmm-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return fail_errno(errno, "Create a memfd for a snapshot");
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "Size a memfd of {} for a snapshot", format_size(bytes));
  }
  return file;
}

namespace {

// fn(number, page) for each page of `which`, in order, until one fails.
template <typename Fn>
Result<void> for_each_page(const Pieces& pieces, const PageSet& which, Fn&& fn) {
  std::uint64_t first = 0;
  std::size_t at = 0;
  Result<void> done;
  which.for_each([&](std::uint64_t number) {
    if (!done) return;
    while (number >= first + pieces[at].range.size() / kPage) {
      first += pieces[at++].range.size() / kPage;
    }
    done = fn(number, pieces[at].hva + (number - first) * kPage);
  });
  return done;
}

PageSet touched_pages(const Pieces& pieces, const TouchedPages& finder) {
  PageSet touched(pages_of(ranges_of(pieces)));
  std::uint64_t first = 0;
  for (const auto& piece : pieces) {
    finder.add(piece, first, touched);
    first += piece.range.size() / kPage;
  }
  return touched;
}

}  // namespace

Result<RamImage> RamImage::copy_of(const GuestMemory& memory, const RamImage* base, UniqueFd file,
                                   CopyOptions options) {
  const Pieces pieces = pieces_of(memory);
  RamImage image(ranges_of(pieces), options.offset, options.checksums);
  Writer writer(file.get(), options, image.pages_, image.layers_.back().extents);
  VMM_TRY(for_each_page(
      pieces, touched_pages(pieces, TouchedPages(base)),
      [&](std::uint64_t number, const std::byte* page) { return writer.add(number, page); }));
  VMM_TRY(writer.flush());
  VMM_TRY(image.finish(std::move(file)));
  return image;
}

namespace {

// Has pages of frozen memory written, as many at once as go, and notes which were not all zeroes.
class FrozenCopy {
 public:
  FrozenCopy(const FrozenMemory& frozen, const RamImage::CopyOptions& options, PageSet& pages,
             std::vector<RamImage::Extent>& extents)
      : frozen_(frozen), options_(options), pages_(pages), extents_(extents) {}

  // A page that follows all before, in the guest's memory at `from`.
  Result<void> add(std::uint64_t number, const std::byte* from) {
    const bool goes_on = count_ != 0 && count_ < FrozenMemory::kMostPages &&
                         number == first_ + count_ && from == start_ + count_ * kPage;
    if (!goes_on) {
      VMM_TRY(flush());
      first_ = number;
      start_ = from;
    }
    ++count_;
    return {};
  }

  Result<void> flush() {
    if (count_ == 0) return {};
    if (options_.cancelled && options_.cancelled()) {
      return fail(ErrorCode::kCancelled, "Somebody asked for an end");
    }
    const auto written = VMM_TRY(frozen_.write(start_, count_, options_.offset + first_ * kPage));
    for (std::uint32_t i = 0; i < count_; ++i) {
      if ((written[i / 64] >> i % 64 & 1) != 0) note(first_ + i);
    }
    count_ = 0;
    return {};
  }

 private:
  void note(std::uint64_t page) {
    pages_.add(page);
    const bool goes_on = !extents_.empty() && extents_.back().pages < RamImage::kMostPages &&
                         extents_.back().first + extents_.back().pages == page;
    if (goes_on) {
      ++extents_.back().pages;
    } else {
      extents_.push_back({.first = page, .pages = 1, .crc = 0});
    }
  }

  const FrozenMemory& frozen_;
  const RamImage::CopyOptions& options_;
  PageSet& pages_;
  std::vector<RamImage::Extent>& extents_;
  std::uint64_t first_ = 0;
  std::uint32_t count_ = 0;
  const std::byte* start_ = nullptr;
};

}  // namespace

Result<RamImage> RamImage::copy_of(const FrozenMemory& frozen, const RamImage* base, UniqueFd file,
                                   CopyOptions options) {
  RamImage image(ranges_of(frozen.pieces()), options.offset, /*checksums=*/false);
  VMM_TRY(frozen.set_file(file.get()));
  FrozenCopy copy(frozen, options, image.pages_, image.layers_.back().extents);
  const TouchedPages finder(base, fmt::format("{}", frozen.process()));
  VMM_TRY(for_each_page(
      frozen.pieces(), touched_pages(frozen.pieces(), finder),
      [&](std::uint64_t number, const std::byte* page) { return copy.add(number, page); }));
  VMM_TRY(copy.flush());
  VMM_TRY(image.finish(std::move(file)));
  return image;
}

Result<RamImage> RamImage::changes_of(const GuestMemory& memory, const RamImage* base,
                                      const RamImage& earlier, const PageSet* candidates,
                                      UniqueFd file, CopyOptions options) {
  const Pieces pieces = pieces_of(memory);
  RamImage image(ranges_of(pieces), options.offset, options.checksums);
  VMM_TRY(image.check_regions(earlier));
  PageSet possible(image.pages_.pages());
  if (candidates != nullptr) {
    possible.add(*candidates);
  } else {
    possible = touched_pages(pieces, TouchedPages(base));
    possible.add(earlier.pages_);  // some may have become zeroes, and been given back
  }
  Writer writer(file.get(), options, image.pages_, image.layers_.back().extents);
  VMM_TRY(for_each_page(pieces, possible,
                        [&](std::uint64_t number, const std::byte* page) -> Result<void> {
                          const auto was = earlier.contents(number);
                          const bool same = std::memcmp(was.data(), page, kPage) == 0;
                          return same ? Result<void>() : writer.add_any(number, page);
                        }));
  VMM_TRY(writer.flush());
  VMM_TRY(image.finish(std::move(file)));
  return image;
}

Result<RamImage> RamImage::on(const RamImage& earlier, std::size_t most) const {
  VMM_TRY(check_regions(earlier));
  RamImage image = earlier;
  const auto layer = static_cast<std::uint32_t>(image.layers_.size());
  image.layers_.push_back(layers_.back());
  std::vector<PageRun> mine = runs_;
  for (PageRun& run : mine) run.layer = layer;
  image.runs_ = laid_over(earlier.runs_, mine);
  image.pages_.add(pages_);
  if (image.mappings().size() <= most) return image;
  VMM_TRY(image.verify());
  UniqueFd file = VMM_TRY(create_memory_file(bytes()));
  return image.copy(std::move(file), {.checksums = true});
}

std::vector<PageRun> RamImage::mappings() const {
  std::vector<PageRun> mappings;
  const PageRun* before = nullptr;
  for (const PageRun& run : runs_) {
    const bool same = before != nullptr && before->layer == run.layer;
    before = &run;
    if (run.layer == 0) continue;
    // What lies between, if anything, is a hole in all files: one mapping does for both.
    if (same) {
      mappings.back().pages = run.end() - mappings.back().first;
    } else {
      mappings.push_back(run);
    }
  }
  return mappings;
}

Result<RamImage> RamImage::copy(UniqueFd file, CopyOptions options) const {
  RamImage image(regions_, options.offset, options.checksums);
  Writer writer(file.get(), options, image.pages_, image.layers_.back().extents);
  Result<void> written;
  pages_.for_each([&](std::uint64_t number) {
    if (written) written = writer.add(number, page(number).data());
  });
  VMM_TRY(std::move(written));
  VMM_TRY(writer.flush());
  VMM_TRY(image.finish(std::move(file)));
  return image;
}

Result<RamImage> RamImage::open(UniqueFd file, std::uint64_t offset, std::vector<GpaRange> regions,
                                std::vector<Extent> extents, std::string name) {
  RamImage image(std::move(regions), offset, /*checksums=*/true);
  std::uint64_t next = 0;
  for (const Extent& extent : extents) {
    if (extent.first < next || extent.pages == 0 || extent.pages > kMostPages ||
        extent.first >= image.pages_.pages() ||
        extent.pages > image.pages_.pages() - extent.first) {
      return fail(ErrorCode::kBadState, "The list of pages is out of order at page {}",
                  extent.first);
    }
    next = extent.first + extent.pages;
    for (std::uint64_t page = extent.first; page < next; ++page) image.pages_.add(page);
  }
  image.layers_.back().extents = std::move(extents);
  image.layers_.back().name = std::move(name);
  VMM_TRY(image.finish(std::move(file)));
  return image;
}

Result<void> RamImage::finish(UniqueFd file) {
  const auto size = static_cast<std::size_t>(bytes());
  if (size == 0) return fail(ErrorCode::kBadState, "A snapshot without memory");
  Layer& layer = layers_.back();
  // A memfd can be made constant; other files stay as they are because nobody changes them.
  (void)::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  void* const address =
      ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), static_cast<off_t>(layer.offset));
  if (address == MAP_FAILED) return fail_errno(errno, "Map {} of a snapshot", format_size(size));
  (void)::madvise(address, size, MADV_DONTDUMP);
  layer.view = std::make_shared<const View>(address, size);
  layer.file = std::make_shared<const UniqueFd>(std::move(file));
  for (const Extent& extent : layer.extents) {
    append(runs_, {.first = extent.first, .pages = extent.pages, .layer = 0});
  }
  return {};
}

// The region is a mapping of the lowest file, and begins with page `first`.
Result<void> RamImage::map_over(const GuestRegion& region, std::uint64_t first,
                                const std::vector<PageRun>& mappings) const {
  if (mappings.empty()) return {};
  const std::uint64_t end = first + region.range().size() / kPage;
  auto next = std::partition_point(mappings.begin(), mappings.end(),
                                   [&](const PageRun& run) { return run.end() <= first; });
  for (; next != mappings.end() && next->first < end; ++next) {
    const Layer& layer = layers_[next->layer];
    const std::uint64_t from = std::max(next->first, first);
    const auto size = static_cast<std::size_t>((std::min(next->end(), end) - from) * kPage);
    std::byte* const at = region.hva() + (from - first) * kPage;
    if (::mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
               layer.file->get(), static_cast<off_t>(layer.offset + from * kPage)) == MAP_FAILED) {
      return fail_errno(errno, "Map {} of guest memory from an increment", format_size(size));
    }
  }
  // They are mappings of their own.
  (void)::madvise(region.hva(), region.range().size(), MADV_DONTDUMP);
  return {};
}

Result<GuestMemory> RamImage::map_files() const {
  const std::vector<PageRun> over = mappings();
  std::vector<GuestRegion> regions;
  std::uint64_t first = 0;
  for (const GpaRange& range : regions_) {
    const Layer& lowest = layers_.front();
    regions.push_back(VMM_TRY(
        GuestRegion::map_private(range, lowest.file->get(), lowest.offset + first * kPage)));
    VMM_TRY(map_over(regions.back(), first, over));
    first += range.size() / kPage;
  }
  return GuestMemory::create(std::move(regions));
}

Result<GuestMemory> RamImage::map() const {
  auto memory = map_files();
  if (memory || layers_.size() == 1 || memory.error().code() != ErrorCode::kResource) return memory;
  // Too many machines from such images at once.
  UniqueFd file = VMM_TRY(create_memory_file(bytes()));
  const RamImage whole = VMM_TRY(copy(std::move(file), {}));
  return whole.map_files();
}

std::vector<PageRun>::const_iterator RamImage::run_at(std::uint64_t number) const noexcept {
  return std::partition_point(runs_.begin(), runs_.end(),
                              [&](const PageRun& run) { return run.end() <= number; });
}

const RamImage::Layer& RamImage::layer_of(std::uint64_t number) const noexcept {
  return layers_.size() == 1 ? layers_.front() : layers_[run_at(number)->layer];
}

RamImage::Piece RamImage::piece_of(std::uint64_t number) const noexcept {
  const std::uint32_t layer = run_at(number)->layer;
  const std::vector<Extent>& extents = layers_[layer].extents;
  const auto extent = std::partition_point(
      extents.begin(), extents.end(), [&](const Extent& e) { return e.first + e.pages <= number; });
  return {.layer = layer, .extent = *extent};
}

namespace {

Error damaged(const RamImage::Extent& extent, const std::string& name) {
  return Error(ErrorCode::kBadState,
               fmt::format("The memory in pages {} to {}{}{} is damaged", extent.first,
                           extent.first + extent.pages - 1, name.empty() ? "" : " of ", name));
}

}  // namespace

Result<void> RamImage::read(const Piece& piece, std::span<std::byte> bytes) const {
  const Layer& layer = layers_[piece.layer];
  bytes = bytes.first(static_cast<std::size_t>(piece.extent.pages * kPage));
  const std::uint64_t offset = layer.offset + piece.extent.first * kPage;
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::pread(layer.file->get(), bytes.data() + done, bytes.size() - done,
                              static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "Read memory of {}", layer.name);
    if (n == 0) return fail(ErrorCode::kBadState, "{} was cut: its memory ends early", layer.name);
    done += static_cast<std::size_t>(n);
  }
  if (layer.checksums && crc32c(bytes) != piece.extent.crc) {
    return tl::unexpected<Error>(damaged(piece.extent, layer.name));
  }
  return {};
}

std::span<const std::byte, RamImage::kPage> RamImage::page(std::uint64_t number) const noexcept {
  return std::span<const std::byte, kPage>(layer_of(number).page(number), kPage);
}

Result<void> RamImage::verify() const {
  for (const Layer& layer : layers_) {
    if (!layer.checksums) continue;  // this process has made it
    for (const Extent& extent : layer.extents) {
      const std::byte* const begin = layer.page(extent.first);
      if (crc32c({begin, static_cast<std::size_t>(extent.pages * kPage)}) != extent.crc) {
        return tl::unexpected<Error>(damaged(extent, layer.name));
      }
    }
  }
  return {};
}

std::span<const std::byte, RamImage::kPage> RamImage::contents(
    std::uint64_t number) const noexcept {
  return pages_.has(number) ? page(number) : std::span<const std::byte, kPage>(kZeroes);
}

Result<void> RamImage::check_regions(const RamImage& other) const {
  const bool same = std::equal(regions_.begin(), regions_.end(), other.regions_.begin(),
                               other.regions_.end(), [](const GpaRange& a, const GpaRange& b) {
                                 return a.base() == b.base() && a.size() == b.size();
                               });
  if (same) return {};
  return fail(ErrorCode::kBadConfig,
              "The memory of one lies elsewhere than the other's ({} and {})",
              format_size(pages_of(regions_) * kPage), format_size(other.bytes()));
}

Result<std::vector<GpaRange>> RamImage::difference(const RamImage& other) const {
  VMM_TRY(check_regions(other));
  std::vector<GpaRange> ranges;
  std::uint64_t number = 0;
  for (const GpaRange& region : regions_) {
    const std::uint64_t end = number + region.size() / kPage;
    std::uint64_t first = end;  // of the differing pages that are being joined
    const auto finish = [&] {
      if (first == end) return;
      const std::uint64_t base =
          region.base().value + (first - (end - region.size() / kPage)) * kPage;
      ranges.push_back(*GpaRange::create(Gpa(base), (number - first) * kPage));
      first = end;
    };
    for (; number < end; ++number) {
      const bool stored = pages_.has(number) || other.pages_.has(number);
      if (stored && !std::ranges::equal(contents(number), other.contents(number))) {
        first = std::min(first, number);
      } else {
        finish();
      }
    }
    finish();
  }
  return ranges;
}

template <typename Fn>
void RamImage::walk_pages_of(const GuestMemory& memory, const PageSet& which, Fn&& fn) const {
  std::uint64_t first = 0;
  std::size_t at = 0;
  which.for_each([&](std::uint64_t number) {
    while (number >= first + regions_[at].size() / kPage) first += regions_[at++].size() / kPage;
    const std::uint64_t offset = (number - first) * kPage;
    fn(number, memory.regions()[at].hva() + offset, Gpa(regions_[at].base().value + offset));
  });
}

std::optional<Gpa> RamImage::difference(const GuestMemory& memory,
                                        const PageSet& which) const noexcept {
  std::optional<Gpa> first;
  walk_pages_of(memory, which, [&](std::uint64_t number, const std::byte* bytes, Gpa at) {
    if (!first && std::memcmp(bytes, contents(number).data(), kPage) != 0) first = at;
  });
  return first;
}

void RamImage::put_back(const GuestMemory& memory, const PageSet& which) const noexcept {
  walk_pages_of(memory, which, [&](std::uint64_t number, std::byte* to, Gpa) {
    std::memcpy(to, contents(number).data(), kPage);
  });
}

}  // namespace vmm

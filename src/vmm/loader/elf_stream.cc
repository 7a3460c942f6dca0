#include "vmm/loader/elf_stream.h"

#include <algorithm>

#include "base/size.h"

namespace vmm::loader {
namespace {

constexpr std::size_t kUsualScratch = 256 * 1024;  // stays in the cache
constexpr std::uint64_t kPage = 4096;

// The part of [begin, end) that `range` covers.
FileRange common(const FileRange& range, std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t from = std::max(range.begin, begin);
  return {from, std::max(from, std::min(range.end, end))};
}

}  // namespace

Result<Produced> ElfStream::receive(std::size_t least, const Produce& produce) {
  if (const auto run = next_run(least)) {
    const auto in_place = options_.memory->with_view(*run, [&](std::span<std::byte> view) {
      Result<Produced> produced = produce(view);
      if (produced) keep(view.first(produced->bytes));
      return produced;
    });
    // A run across two regions has no view; it goes through the scratch buffer.
    if (in_place) {
      const Produced produced = VMM_TRY(Result<Produced>(*in_place));
      position_ += produced.bytes;
      return produced;
    }
  }
  if (scratch_.bytes().size() < least) {
    scratch_ = VMM_TRY(HostBuffer::create(std::max(least, kUsualScratch), HostBuffer::Pages::kNow,
                                          "decompression"));
  }
  const Produced produced = VMM_TRY(produce(scratch_.bytes()));
  VMM_TRY(write(scratch_.bytes().first(produced.bytes)));
  return produced;
}

Result<void> ElfStream::write(std::span<const std::byte> piece) {
  if (elf_) return take(piece);
  if (pending_.empty() && piece.size() >= kElfHeaderWindow) {
    VMM_TRY(begin(piece));
    return take(piece);
  }
  pending_.insert(pending_.end(), piece.begin(), piece.end());
  if (pending_.size() < kElfHeaderWindow) return {};
  VMM_TRY(begin(pending_));
  VMM_TRY(take(pending_));
  pending_ = {};
  return {};
}

Result<void> ElfStream::begin(std::span<const std::byte> bytes) {
  elf_ = VMM_TRY(parse_elf_headers(bytes, options_.file_size));
  for (const FileRange& file : elf_->notes) {
    Kept kept{file, {}};
    kept.bytes.resize(static_cast<std::size_t>(file.size()));
    kept_.push_back(std::move(kept));
  }
  if (options_.memory == nullptr) return {};
  if (options_.choose_slide) slide_ = VMM_TRY(options_.choose_slide(*elf_));
  VMM_TRY(check_placement());
  populate();
  return {};
}

Result<void> ElfStream::check_placement() const {
  for (const ElfSegment& s : elf_->segments) {
    const auto base = s.memory.base().plus(slide_);
    const auto range = base ? GpaRange::create(*base, s.memory.size()) : std::nullopt;
    if (!range) {
      return fail(ErrorCode::kBadKernel,
                  "program header {}: p_paddr {} and p_memsz {:#x}, moved by {:#x}, wrap", s.index,
                  s.memory.base(), s.memory.size(), slide_);
    }
    VMM_TRY(check_bounds(fmt::format("program header {}: p_paddr and p_memsz put it", s.index),
                         *range, options_.bounds, *options_.memory));
  }
  return {};
}

// One system call for each segment instead of one fault for each page, and huge pages, which a
// kernel fills. Only advice: what it cannot do, the faults will.
void ElfStream::populate() const {
  for (const ElfSegment& s : elf_->segments) {
    const auto bytes = GpaRange::create(place_of(s), s.file.size());
    if (!bytes || bytes->empty()) continue;
    for (const GuestRegion& region : options_.memory->regions()) {
      if (region.kind() != RegionKind::kRam || !region.range().contains(*bytes)) continue;
      const std::uint64_t from =
          align_down(bytes->base().offset_from(region.range().base()), kPage);
      const std::uint64_t to = bytes->end().offset_from(region.range().base());
      const std::uint64_t size = align_down(to + kPage - 1, kPage) - from;
      region.prefer_huge_pages(from, size);
      (void)region.populate(from, size);
    }
  }
}

std::optional<GpaRange> ElfStream::next_run(std::size_t least) const {
  if (!elf_ || options_.memory == nullptr) return std::nullopt;
  const ElfSegment* owner = nullptr;
  std::uint64_t end = ~0ULL;
  for (const ElfSegment& s : elf_->segments) {
    if (s.file.begin > position_) {
      end = std::min(end, s.file.begin);
    } else if (position_ < s.file.end) {
      if (owner != nullptr) return std::nullopt;  // one byte of the file, two places
      owner = &s;
      end = std::min(end, s.file.end);
    }
  }
  if (owner == nullptr || end - position_ < least) return std::nullopt;
  const auto base = place_of(*owner).plus(position_ - owner->file.begin);
  return base ? GpaRange::create(*base, end - position_) : std::nullopt;
}

Result<void> ElfStream::take(std::span<const std::byte> piece) {
  if (options_.memory != nullptr) {
    for (const ElfSegment& s : elf_->segments) {
      const FileRange part = common(s.file, position_, position_ + piece.size());
      if (part.size() == 0) continue;
      const Gpa to(place_of(s).value + (part.begin - s.file.begin));
      VMM_TRY(
          options_.memory->write(to, piece.subspan(static_cast<std::size_t>(part.begin - position_),
                                                   static_cast<std::size_t>(part.size()))));
    }
  }
  keep(piece);
  position_ += piece.size();
  return {};
}

void ElfStream::keep(std::span<const std::byte> piece) {
  const std::uint64_t end = position_ + piece.size();
  for (Kept& kept : kept_) {
    const FileRange part = common(kept.file, position_, end);
    if (part.size() == 0) continue;
    std::ranges::copy(
        piece.subspan(static_cast<std::size_t>(part.begin - position_),
                      static_cast<std::size_t>(part.size())),
        kept.bytes.begin() + static_cast<std::ptrdiff_t>(part.begin - kept.file.begin));
  }
  if (options_.keep_tail && end > elf_->end && tail_.size() < kMaxTail) {
    if (tail_.empty() && options_.file_size) {
      tail_.reserve(static_cast<std::size_t>(
          std::min(kMaxTail, *options_.file_size - std::min(*options_.file_size, elf_->end))));
    }
    const std::uint64_t from = std::max(position_, elf_->end);
    const auto rest = piece.subspan(static_cast<std::size_t>(from - position_));
    tail_.insert(tail_.end(), rest.begin(), rest.end());
  }
}

Result<void> ElfStream::finish() {
  if (!elf_) {
    VMM_TRY(begin(pending_));
    VMM_TRY(take(pending_));
    pending_ = {};
  }
  for (const ElfSegment& s : elf_->segments) {
    if (s.file.end > position_) {
      return fail(ErrorCode::kBadKernel,
                  "program header {}: its bytes [{:#x}, {:#x}) are past the end of the ELF file of "
                  "{} bytes",
                  s.index, s.file.begin, s.file.end, position_);
    }
    const std::uint64_t zeroes = s.memory.size() - s.file.size();
    if (options_.memory == nullptr || options_.memory_is_zero || zeroes == 0) continue;
    const auto from = place_of(s).plus(s.file.size());
    const auto range = from ? GpaRange::create(*from, zeroes) : std::nullopt;
    if (range) VMM_TRY(options_.memory->fill(*range, std::byte{0}));
  }
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    if (kept_[i].file.end > position_) {
      return fail(ErrorCode::kBadKernel,
                  "a note segment at [{:#x}, {:#x}) is past the end of the ELF file of {} bytes",
                  kept_[i].file.begin, kept_[i].file.end, position_);
    }
    std::vector<ElfNote> notes = VMM_TRY(parse_elf_notes(kept_[i].bytes, elf_->note_alignments[i]));
    notes_.insert(notes_.end(), std::make_move_iterator(notes.begin()),
                  std::make_move_iterator(notes.end()));
  }
  kept_.clear();
  return {};
}

}  // namespace vmm::loader

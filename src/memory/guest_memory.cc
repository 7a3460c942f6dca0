#include "memory/guest_memory.h"

#include <algorithm>
#include <cstring>

namespace vmm {
namespace {

// The bytes in place where there are some and all lie in one region of RAM, as nearly always; else
// null.
std::byte* in_ram(const GuestRegion* region, Gpa from, std::uint64_t size) noexcept {
  if (region == nullptr || region->kind() != RegionKind::kRam || size == 0) return nullptr;
  const std::uint64_t offset = from.offset_from(region->range().base());
  return size <= region->range().size() - offset ? region->hva() + offset : nullptr;
}

}  // namespace

Result<GuestMemory> GuestMemory::create(std::vector<GuestRegion> regions) {
  std::sort(regions.begin(), regions.end(), [](const GuestRegion& a, const GuestRegion& b) {
    return a.range().base() < b.range().base();
  });
  for (std::size_t i = 1; i < regions.size(); ++i) {
    if (regions[i - 1].range().overlaps(regions[i].range())) {
      return fail(ErrorCode::kBadConfig, "Guest memory regions {} and {} overlap",
                  regions[i - 1].range(), regions[i].range());
    }
  }
  return GuestMemory(std::move(regions));
}

std::uint64_t GuestMemory::size() const noexcept {
  std::uint64_t total = 0;
  for (const GuestRegion& region : regions_) {
    if (region.kind() == RegionKind::kRam) total += region.range().size();
  }
  return total;
}

const GuestRegion* GuestMemory::region(RegionKind kind, std::size_t number) const noexcept {
  for (const GuestRegion& region : regions_) {
    if (region.kind() == kind && number-- == 0) return &region;
  }
  return nullptr;
}

[[gnu::hot]] const GuestRegion* GuestMemory::find(Gpa address) const noexcept {
  // A guest has a handful of regions: a scan beats a search tree.
  for (const GuestRegion& region : regions_) {
    if (region.range().contains(address)) return &region;
  }
  return nullptr;
}

std::uint64_t GuestMemory::available(Gpa from, std::uint64_t wanted, bool files) const noexcept {
  std::uint64_t done = 0;
  while (done < wanted) {
    const auto at = from.plus(done);
    const GuestRegion* const region = at ? find(*at) : nullptr;
    if (region == nullptr || (region->kind() == RegionKind::kFile && !files)) break;
    const std::uint64_t most = std::min(wanted - done, region->range().end().offset_from(*at));
    const MemoryBlocks* const blocks = region->blocks();
    if (blocks == nullptr) {
      done += most;
      continue;
    }
    const std::uint64_t there =
        blocks->plugged_bytes(at->offset_from(region->range().base()), most);
    done += there;
    if (there < most) break;
  }
  return done;
}

bool GuestMemory::contains(const GpaRange& range) const noexcept {
  return available(range.base(), range.size(), false) == range.size();
}

bool GuestMemory::reaches(const GpaRange& range) const noexcept {
  return available(range.base(), range.size(), true) == range.size();
}

Result<void> GuestMemory::check(Gpa from, std::uint64_t size, const char* verb) const {
  const std::uint64_t there = available(from, size, true);
  if (there == size) return {};
  return fail(ErrorCode::kOutOfRange,
              "{} {} bytes of guest memory at GPA {}: RAM ends after {} bytes", verb, size, from,
              there);
}

void GuestMemory::mark_written(Gpa from, std::uint64_t size) const noexcept {
  const GuestRegion* const region = find(from);
  if (region != nullptr) region->mark_written(from.offset_from(region->range().base()), size);
}

template <typename Fn>
Result<void> GuestMemory::for_each_piece(Gpa from, std::uint64_t size, Fn&& fn) const {
  for (std::uint64_t done = 0; done < size;) {
    const Gpa at(from.value + done);
    const GuestRegion* const region = find(at);
    const std::uint64_t n = std::min(size - done, region->range().end().offset_from(at));
    VMM_TRY(fn(*region, at.offset_from(region->range().base()), static_cast<std::size_t>(done),
               static_cast<std::size_t>(n)));
    done += n;
  }
  return {};
}

Result<void> GuestMemory::read(Gpa from, std::span<std::byte> bytes) const {
  if (const std::byte* const there = in_ram(find(from), from, bytes.size())) {
    std::memcpy(bytes.data(), there, bytes.size());
    return {};
  }
  VMM_TRY(check(from, bytes.size(), "Read"));
  return for_each_piece(from, bytes.size(),
                        [&](const GuestRegion& region, std::uint64_t offset, std::size_t done,
                            std::size_t n) { return region.read(offset, bytes.subspan(done, n)); });
}

Result<void> GuestMemory::write(Gpa to, std::span<const std::byte> bytes) const {
  const GuestRegion* const first = find(to);
  if (std::byte* const there = in_ram(first, to, bytes.size())) {
    first->mark_written(to.offset_from(first->range().base()), bytes.size());
    std::memcpy(there, bytes.data(), bytes.size());
    return {};
  }
  VMM_TRY(check(to, bytes.size(), "Write"));
  return for_each_piece(
      to, bytes.size(),
      [&](const GuestRegion& region, std::uint64_t offset, std::size_t done, std::size_t n) {
        return region.write(offset, bytes.subspan(done, n));
      });
}

Result<void> GuestMemory::fill(const GpaRange& range, std::byte value) const {
  VMM_TRY(check(range.base(), range.size(), "Fill"));
  return for_each_piece(range.base(), range.size(),
                        [&](const GuestRegion& region, std::uint64_t offset, std::size_t,
                            std::size_t n) { return region.fill(offset, n, value); });
}

Result<bool> GuestMemory::compare_exchange(Gpa at, Bytes16& expected,
                                           const Bytes16& desired) const {
  const HeldBytes place = VMM_TRY(aligned(at, sizeof expected));
  mark_written(at, sizeof expected);
  std::byte* const p = place.data;
  std::array<std::uint64_t, 2> old{};
  std::array<std::uint64_t, 2> next{};
  std::memcpy(old.data(), expected.data(), sizeof old);
  std::memcpy(next.data(), desired.data(), sizeof next);
  // By hand: the compiler's builtin wants libatomic, which may take a lock that no guest CPU knows.
  bool swapped = false;
  asm volatile("lock cmpxchg16b %1"
               : "=@ccz"(swapped), "+m"(*reinterpret_cast<std::array<std::byte, 16>*>(p)),
                 "+a"(old[0]), "+d"(old[1])
               : "b"(next[0]), "c"(next[1])
               : "memory");
  std::memcpy(expected.data(), old.data(), sizeof old);
  return swapped;
}

Result<HeldBytes> GuestMemory::hold(const GpaRange& range) const {
  HeldBytes held = VMM_TRY(enter(range));
  mark_written(range.base(), range.size());
  return held;
}

Result<HeldBytes> GuestMemory::enter(const GpaRange& range) const {
  const GuestRegion* const region = find(range.base());
  if (std::byte* const there = in_ram(region, range.base(), range.size())) return HeldBytes{there};
  if (region == nullptr || !region->range().contains(range)) {
    return fail(ErrorCode::kOutOfRange, "Guest memory {} does not lie in one region of RAM", range);
  }
  HeldBytes held;
  held.data = VMM_TRY(
      region->enter(range.base().offset_from(region->range().base()), range.size(), held.use));
  return held;
}

Result<HeldBytes> GuestMemory::aligned(Gpa address, std::size_t size) const {
  if (address.value % size != 0) {
    return fail(ErrorCode::kBadConfig, "Atomic access of {} bytes at misaligned GPA {}", size,
                address);
  }
  const auto range = GpaRange::create(address, size);
  if (!range) return fail(ErrorCode::kOutOfRange, "Atomic access past the end at GPA {}", address);
  return enter(*range);
}

}  // namespace vmm

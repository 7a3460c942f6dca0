#include "vmm/loader/initrd.h"

#include <algorithm>
#include <optional>

#include "vmm/loader/cpio_unpack.h"
#include "vmm/loader/input_file.h"

namespace vmm::loader {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMaxFileSize = 1ULL << 32;  // ramdisk_size has 32 bits
constexpr std::uint64_t kMaxUnpacked = 1ULL << 30;

std::optional<GpaRange> between(Gpa low, Gpa high) {
  if (high <= low) return std::nullopt;
  return GpaRange::create(low, high.offset_from(low));
}

// The ranges where an initrd may lie: RAM within the limits, above and below the kernel.
std::vector<GpaRange> free_ranges(const GuestMemory& memory, const InitrdOptions& options) {
  std::vector<GpaRange> ranges;
  for (const GuestRegion& region : memory.regions()) {
    if (region.kind() != RegionKind::kRam) continue;
    const Gpa low = std::max(region.range().base(), options.lowest);
    const Gpa high = std::min(region.range().end(), options.highest);
    const bool split = !options.kernel.empty();
    const auto below = between(low, split ? std::min(high, options.kernel.base()) : high);
    const auto above =
        split ? between(std::max(low, options.kernel.end()), high) : std::optional<GpaRange>();
    if (below) ranges.push_back(*below);
    if (above) ranges.push_back(*above);
  }
  return ranges;
}

// The largest size that fits somewhere.
std::uint64_t largest(const std::vector<GpaRange>& ranges) {
  std::uint64_t size = 0;
  for (const GpaRange& range : ranges) {
    const auto base = checked_align_up(range.base().value, kPage);
    if (base && *base < range.end().value) size = std::max(size, range.end().value - *base);
  }
  return size;
}

// The highest page-aligned place for `size` bytes.
std::optional<GpaRange> place(const std::vector<GpaRange>& ranges, std::uint64_t size) {
  std::optional<GpaRange> best;
  for (const GpaRange& range : ranges) {
    if (size > range.size()) continue;
    const Gpa base = Gpa(range.end().value - size).align_down(kPage);
    if (base < range.base() || (best && base < best->base())) continue;
    best = GpaRange::create(base, size);
  }
  return best;
}

Result<GpaRange> place_or_fail(std::string_view name, std::uint64_t size, const GuestMemory& memory,
                               const InitrdOptions& options) {
  const std::vector<GpaRange> ranges = free_ranges(memory, options);
  if (const auto range = place(ranges, size)) return *range;
  return fail(
      ErrorCode::kBadKernel,
      "{}: the initrd of {} does not fit: beside the kernel at {} and below {} there is room "
      "for {} (the guest has {})",
      name, format_size(size), options.kernel, options.highest, format_size(largest(ranges)),
      format_size(memory.size()));
}

Result<LoadedInitrd> load_as_it_is(std::span<const std::byte> bytes, std::string_view name,
                                   const GuestMemory& memory, const InitrdOptions& options) {
  LoadedInitrd loaded;
  loaded.range = VMM_TRY(place_or_fail(name, bytes.size(), memory, options));
  VMM_TRY(memory.write(loaded.range.base(), bytes));
  return loaded;
}

}  // namespace

Result<LoadedInitrd> load_initrd(std::span<const std::byte> bytes, std::string_view name,
                                 const GuestMemory& memory, const InitrdOptions& options) {
  if (bytes.empty()) return fail(ErrorCode::kBadKernel, "{}: the initrd is empty", name);
  if (!options.unpack) return load_as_it_is(bytes, name, memory, options);
  const std::uint64_t limit = std::min(kMaxUnpacked, largest(free_ranges(memory, options)));
  Result<UnpackedInitrd> unpacked = unpack_initrd(bytes, limit);
  if (!unpacked) {
    LoadedInitrd loaded = VMM_TRY(load_as_it_is(bytes, name, memory, options));
    loaded.notes.push_back(
        fmt::format("{}: not unpacked on the host: {}", name, unpacked.error().message()));
    return loaded;
  }
  if (unpacked->unpacked == 0) return load_as_it_is(bytes, name, memory, options);
  LoadedInitrd loaded = VMM_TRY(load_as_it_is(unpacked->bytes(), name, memory, options));
  for (const std::string& note : unpacked->notes) {
    loaded.notes.push_back(fmt::format("{}: {}", name, note));
  }
  return loaded;
}

Result<LoadedInitrd> load_initrd(const std::filesystem::path& path, const GuestMemory& memory,
                                 const InitrdOptions& options) {
  const InputFile file = VMM_TRY(InputFile::open(path, kMaxFileSize));
  if (options.unpack) {
    const HostBuffer buffer = VMM_TRY(file.read_all());
    return load_initrd(buffer.bytes(), file.name(), memory, options);
  }
  // Straight from the file to its place.
  LoadedInitrd loaded;
  loaded.range = VMM_TRY(place_or_fail(file.name(), file.size(), memory, options));
  const Result<void> read = VMM_TRY(memory.with_view(
      loaded.range, [&](std::span<std::byte> view) { return file.read_at(0, view); }));
  VMM_TRY(read);
  return loaded;
}

}  // namespace vmm::loader

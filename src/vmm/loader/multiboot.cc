#include "vmm/loader/multiboot.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/le.h"

namespace vmm::loader {
namespace {

constexpr std::uint32_t kMagic1 = 0x1bad'b002;
constexpr std::uint32_t kMagic2 = 0xe852'50d6;
constexpr std::size_t kWindow1 = 8192;
constexpr std::size_t kBasicSize1 = 12;      // magic, flags, checksum
constexpr std::size_t kAddressesSize1 = 32;  // and the five addresses
constexpr std::size_t kBasicSize2 = 16;      // magic, architecture, length, checksum
constexpr std::size_t kTagAlignment = 8;

// Flags of version 1: 0 to 15 are demands, 16 and up are offers.
constexpr std::uint32_t kPageAlign = 1U << 0;
constexpr std::uint32_t kMemoryInfo = 1U << 1;
constexpr std::uint32_t kVideoMode = 1U << 2;
constexpr std::uint32_t kDemands = 0xffff;
constexpr std::uint32_t kAddresses = 1U << 16;

// Tags of version 2.
enum Tag : std::uint16_t {
  kEnd = 0,
  kInformationRequest = 1,
  kAddressTag = 2,
  kEntryAddress = 3,
  kConsoleFlags = 4,
  kFramebuffer = 5,
  kModuleAlign = 6,
  kEfiBootServices = 7,
  kEfi32Entry = 8,
  kEfi64Entry = 9,
  kRelocatable = 10,
};
constexpr std::uint16_t kOptional = 1U << 0;
constexpr std::uint32_t kLastInformationType = 21;  // load base address
constexpr std::uint32_t kFromStart = 0xffff'ffff;   // load_addr: the file from its first byte on

std::uint32_t word(std::span<const std::byte> bytes, std::size_t offset) {
  return static_cast<std::uint32_t>(load_le(bytes.subspan(offset, 4)));
}

std::uint16_t half(std::span<const std::byte> bytes, std::size_t offset) {
  return static_cast<std::uint16_t>(load_le(bytes.subspan(offset, 2)));
}

// The addresses as they stand in the file, the same in both versions.
struct Addresses {
  std::uint32_t header = 0;
  std::uint32_t load = 0;
  std::uint32_t load_end = 0;  // 0: to the end of the file
  std::uint32_t bss_end = 0;   // 0: no zeroes
};

Addresses addresses_at(std::span<const std::byte> bytes, std::size_t offset) {
  return {word(bytes, offset), word(bytes, offset + 4), word(bytes, offset + 8),
          word(bytes, offset + 12)};
}

tl::unexpected<Error> bad(std::string_view field, std::uint32_t value, std::string_view why) {
  return fail(ErrorCode::kBadKernel, "Multiboot header: {} is {:#x}: {}", field, value, why);
}

Result<MultibootPlacement> place(const Addresses& given, std::uint64_t header_offset,
                                 std::uint64_t file_size) {
  // The file and memory run in parallel: what lies before the header in one does so in the other.
  std::uint64_t load = given.load;
  if (given.load == kFromStart) {
    if (given.header < header_offset) {
      return bad("header_addr", given.header, "the start of the file would lie below address 0");
    }
    load = given.header - header_offset;
  }
  if (given.header < load || given.header - load > header_offset) {
    return bad("load_addr", given.load,
               fmt::format("with header_addr {:#x} and the header at byte {:#x} of the file, it "
                           "lies outside of the file",
                           given.header, header_offset));
  }
  MultibootPlacement placement;
  placement.file_offset = header_offset - (given.header - load);
  const std::uint64_t available = file_size - placement.file_offset;
  const std::uint64_t end = given.load_end == 0 ? load + available : given.load_end;
  if (end <= load || end - load > available) {
    return bad("load_end_addr", given.load_end,
               fmt::format("with load_addr {:#x}, that is not within the {} bytes of the file",
                           load, file_size));
  }
  if (given.bss_end != 0 && given.bss_end < end) {
    return bad("bss_end_addr", given.bss_end, fmt::format("below the image's end {:#x}", end));
  }
  // Sums of 32-bit numbers and a file's size: they cannot wrap.
  const std::uint64_t zeroes = given.bss_end == 0 ? 0 : given.bss_end - end;
  placement.image = GpaRange::create(Gpa(load), end - load).value_or(GpaRange());
  placement.bss = GpaRange::create(Gpa(end), zeroes).value_or(GpaRange());
  constexpr std::uint64_t k4GiB = std::uint64_t{1} << 32;
  if (end + zeroes > k4GiB) {
    return bad("load_addr", given.load, fmt::format("the image would end at {:#x}", end + zeroes));
  }
  return placement;
}

Result<void> check_entry(const MultibootHeader& header) {
  if (!header.placement) return {};
  if (!header.entry) {
    return fail(ErrorCode::kBadKernel,
                "Multiboot header: there is an address tag, but no entry address tag");
  }
  if (header.placement->image.contains(*header.entry)) return {};
  return bad("entry_addr", static_cast<std::uint32_t>(header.entry->value),
             fmt::format("outside of the image at {}", header.placement->image));
}

Result<MultibootHeader> parse1(std::span<const std::byte> file, std::size_t offset) {
  MultibootHeader header;
  header.offset = offset;
  const std::uint32_t flags = word(file, offset + 4);
  const std::uint32_t unknown = flags & kDemands & ~(kPageAlign | kMemoryInfo | kVideoMode);
  if (unknown != 0) {
    return bad("flags", flags,
               fmt::format("bits {:#x} demand what the specification does not define", unknown));
  }
  header.wants_video = (flags & kVideoMode) != 0;
  if ((flags & kAddresses) == 0) return header;
  if (file.size() - offset < kAddressesSize1) {
    return bad("flags", flags, "bit 16 promises addresses, but the file ends before them");
  }
  header.placement = VMM_TRY(place(addresses_at(file, offset + kBasicSize1), offset, file.size()));
  header.entry = Gpa(word(file, offset + kBasicSize1 + 16));
  VMM_TRY(check_entry(header));
  return header;
}

// The least size of each tag, by type.
constexpr std::array<std::uint32_t, 11> kTagSizes{8, 8, 24, 12, 12, 20, 8, 8, 12, 12, 24};

Result<void> check_requests(std::span<const std::byte> tag) {
  for (std::size_t at = kTagAlignment; tag.size() - at >= 4; at += 4) {
    const std::uint32_t type = word(tag, at);
    if (type <= kLastInformationType) continue;
    return bad("information request", type, "there is no such information");
  }
  return {};
}

// `tag` has at least the least size of its type.
Result<void> take_tag(MultibootHeader& header, std::uint16_t type, bool optional,
                      std::span<const std::byte> tag, std::uint64_t file_size) {
  switch (type) {
    case kInformationRequest:
      return optional ? Result<void>() : check_requests(tag);
    case kAddressTag:
      header.placement = VMM_TRY(place(addresses_at(tag, 8), header.offset, file_size));
      return {};
    case kEntryAddress:
      header.entry = Gpa(word(tag, 8));
      return {};
    case kFramebuffer:
      header.wants_video = true;
      return {};
    case kRelocatable:
      header.relocatable = true;
      return {};
    case kConsoleFlags:     // about a text screen
    case kModuleAlign:      // they are aligned anyway
    case kEfiBootServices:  // there is no EFI
    case kEfi32Entry:
    case kEfi64Entry:
      return {};
    default:
      if (optional) return {};
      return bad("tag type", type, "it is not optional, and unknown");
  }
}

Result<MultibootHeader> parse2(std::span<const std::byte> file, std::size_t offset) {
  constexpr std::uint32_t kI386 = 0;
  MultibootHeader header;
  header.version = MultibootVersion::k2;
  header.offset = offset;
  const std::uint32_t architecture = word(file, offset + 4);
  if (architecture != kI386) return bad("architecture", architecture, "not 0 (i386)");
  const std::uint32_t length = word(file, offset + 8);
  if (length < kBasicSize2 || length > file.size() - offset || length > kMultibootWindow) {
    return bad("header_length", length, "the header does not lie in the file's first 32 KiB");
  }
  const auto tags = file.subspan(offset, length);
  std::size_t at = kBasicSize2;
  while (tags.size() - at >= kTagAlignment) {
    const std::uint16_t type = half(tags, at);
    const bool optional = (half(tags, at + 2) & kOptional) != 0;
    const std::uint32_t size = word(tags, at + 4);
    if (type == kEnd) break;
    const std::uint32_t least = type < kTagSizes.size() ? kTagSizes[type] : kTagSizes[kEnd];
    if (size < least || size > tags.size() - at) {
      return bad("tag size", size,
                 fmt::format("tag {} at byte {:#x} needs {} and has {} before the header's end",
                             type, offset + at, least, tags.size() - at));
    }
    VMM_TRY(take_tag(header, type, optional, tags.subspan(at, size), file.size()));
    const std::size_t next = at + (size + kTagAlignment - 1) / kTagAlignment * kTagAlignment;
    at = std::min(next, tags.size());
  }
  VMM_TRY(check_entry(header));
  return header;
}

}  // namespace

GpaRange MultibootPlacement::extent() const noexcept {
  return GpaRange::create(image.base(), image.size() + bss.size()).value_or(image);
}

std::optional<std::size_t> find_multiboot(std::span<const std::byte> bytes,
                                          MultibootVersion version) noexcept {
  const bool first = version == MultibootVersion::k1;
  const std::size_t size = first ? kBasicSize1 : kBasicSize2;
  const auto window = bytes.first(std::min(bytes.size(), first ? kWindow1 : kMultibootWindow));
  const std::size_t alignment = first ? 4 : 8;
  for (std::size_t at = 0; at + size <= window.size(); at += alignment) {
    if (word(window, at) != (first ? kMagic1 : kMagic2)) continue;
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < size; i += 4) sum += word(window, at + i);
    if (sum == 0) return at;
  }
  return std::nullopt;
}

Result<MultibootHeader> parse_multiboot(std::span<const std::byte> file, MultibootVersion version) {
  const auto offset = find_multiboot(file, version);
  const bool first = version == MultibootVersion::k1;
  if (!offset) {
    return fail(ErrorCode::kBadKernel,
                "no Multiboot{} header: magic {:#x} and its checksum are not in the first {} bytes",
                first ? "" : "2", first ? kMagic1 : kMagic2, first ? kWindow1 : kMultibootWindow);
  }
  return first ? parse1(file, *offset) : parse2(file, *offset);
}

}  // namespace vmm::loader

// The header by which an image says that it is a Multiboot kernel, and what it wants.
//
// Documents: Multiboot Specification 0.6.96 and Multiboot2 Specification 2.0, section 3.1 of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "memory/address.h"

namespace vmm::loader {

enum class MultibootVersion : std::uint8_t { k1 = 1, k2 = 2 };

// Which bytes of the file go where, for an image that says so in its header: the address fields of
// version 1, the address tag of version 2.
struct MultibootPlacement {
  std::uint64_t file_offset = 0;  // of the first byte that is loaded
  GpaRange image;                 // as many bytes of the file: not empty, below 4 GiB
  GpaRange bss;                   // zeroes behind it; may be empty

  GpaRange extent() const noexcept;  // both
};

struct MultibootHeader {
  MultibootVersion version = MultibootVersion::k1;
  std::uint64_t offset = 0;                     // of the header in the file
  std::optional<MultibootPlacement> placement;  // in place of the ELF's segments
  std::optional<Gpa> entry;                     // in place of the ELF's
  bool wants_video = false;                     // a video mode: there is none to give
  bool relocatable = false;                     // version 2: it could be moved, and is not
};

// How much of a file is searched for the longer of the headers.
inline constexpr std::size_t kMultibootWindow = 32 * 1024;

// Where the header of this version begins in a file that begins with `bytes`; nothing when magic
// and checksum stand together nowhere.
std::optional<std::size_t> find_multiboot(std::span<const std::byte> bytes,
                                          MultibootVersion version) noexcept;

// Reads the header of a whole file. Errors: kBadKernel naming field and value when there is none,
// when it makes no sense, or when it demands what nobody here can do; the caller adds the file's
// name.
Result<MultibootHeader> parse_multiboot(std::span<const std::byte> file, MultibootVersion version);

}  // namespace vmm::loader

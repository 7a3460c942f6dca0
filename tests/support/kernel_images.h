// Tiny kernel images made in memory, good ones, for tests to load or to break.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/loader/decompress.h"

namespace vmm::test {

using Bytes = std::vector<std::byte>;

Bytes to_bytes(std::string_view text);
// `size` bytes that compress to about half, the same for the same seed.
Bytes pattern(std::size_t size, std::uint8_t seed = 1);

// Little-endian integers in place; the offset is inside.
void put16(Bytes& bytes, std::size_t offset, std::uint16_t value);
void put32(Bytes& bytes, std::size_t offset, std::uint32_t value);
void put64(Bytes& bytes, std::size_t offset, std::uint64_t value);
void append(Bytes& bytes, std::span<const std::byte> more);

// Packed as the usual tools pack it, by the libraries themselves.
Bytes compress(loader::Compression compression, std::span<const std::byte> bytes);
// All formats, for parameterised tests.
inline constexpr loader::Compression kAllCompressions[] = {
    loader::Compression::kGzip,     loader::Compression::kBzip2, loader::Compression::kLzma,
    loader::Compression::kXz,       loader::Compression::kLzo,   loader::Compression::kLz4Legacy,
    loader::Compression::kLz4Frame, loader::Compression::kZstd,
};

struct SegmentSpec {
  std::uint64_t physical = 0;
  std::uint64_t virtual_address = 0;
  Bytes bytes;
  std::uint64_t bss = 0;  // zeroes behind the bytes
};

struct NoteSpec {
  std::string owner;
  std::uint32_t type = 0;
  Bytes description;
};

struct ElfSpec {
  bool is_64bit = true;
  std::uint64_t entry = 0;
  std::vector<SegmentSpec> segments;
  std::vector<NoteSpec> notes;  // in a PT_NOTE segment; none when empty
  Bytes tail;                   // behind the section headers
};

// Layout: header, program headers (one for each segment, then the notes'), segments' bytes, notes,
// one empty section header, tail.
Bytes build_elf(const ElfSpec& spec);

// A Linux-like kernel: two segments linked at 16 MiB in the kernel's virtual map, .bss, the entry
// at its first byte, notes of Linux and of PVH.
ElfSpec linux_elf();

// Notes as Linux and Xen name them.
NoteSpec linux_note();
NoteSpec pvh_note(std::uint32_t entry);

struct BzImageSpec {
  std::uint16_t version = 0x020f;
  std::uint8_t loadflags = 1;
  std::uint16_t xloadflags = 1;  // XLF_KERNEL_64
  std::uint64_t pref_address = 0x1000000;
  std::uint32_t init_size = 0x40000;
  std::uint32_t kernel_alignment = 0x200000;
  bool relocatable = true;
  std::string version_string = "6.1.0-test (builder) #1";
  // The payload and, unless it is empty, how it is packed; nothing leaves it as it is.
  Bytes payload;
  std::optional<loader::Compression> compression;
  // What stands before the payload: the code at the image's own entries.
  std::size_t head_size = 0x400;
};

inline constexpr std::size_t kBzImageSetupSize = 1024;  // setup_sects is 1

Bytes build_bzimage(const BzImageSpec& spec);
// linux_elf() in a bzImage.
Bytes linux_bzimage(std::optional<loader::Compression> compression);

// A Multiboot image of version 1. Without addresses it is an ELF32 whose first segment begins with
// the header; with them, the bytes of that segment alone.
struct MultibootSpec {
  std::uint32_t flags = 3;  // aligned modules, memory information
  std::uint64_t base = 0x1000000;
  bool addresses = false;
  bool is_64bit = false;  // an ELF64
  std::size_t size = 0x400;
  std::uint32_t bss = 0x100;
};
Bytes build_multiboot(const MultibootSpec& spec);

// The header of version 2, with these tags before the end tag; and an ELF32 or, when the tags place
// it, a flat image that begins with it.
struct Multiboot2Tag {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::vector<std::uint32_t> words;
};
struct Multiboot2Spec {
  std::vector<Multiboot2Tag> tags;
  bool elf = true;
  bool is_64bit = false;
  std::uint64_t base = 0x1000000;
};
Bytes build_multiboot2(const Multiboot2Spec& spec);
// The entry of both: behind the header.
inline constexpr std::uint32_t kMultibootEntryOffset = 0x200;

}  // namespace vmm::test

// ELF executables as kernels use them: header, loadable segments, notes.
//
// Source: System V ABI, "Object Files"; the Xen public header elfnote.h for the PVH entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "memory/address.h"

namespace vmm::loader {

// Half-open range of bytes of a file; begin <= end.
struct FileRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const noexcept { return end - begin; }
  bool operator==(const FileRange&) const = default;
};

// A PT_LOAD program header: file bytes that go to `memory`, followed by zeroes up to its end.
struct ElfSegment {
  std::uint16_t index = 0;  // of the program header, for messages
  FileRange file;
  GpaRange memory;  // at p_paddr, not smaller than the file range
  std::uint64_t virtual_address = 0;
  std::uint32_t flags = 0;  // p_flags: PF_X 1, PF_W 2, PF_R 4
};

struct ElfNote {
  std::string owner;  // at most 32 characters of it, printable
  std::uint32_t type = 0;
  std::vector<std::byte> description;  // at most 64 bytes of it
};

// What header and program headers say. Parsed values are consistent: file ranges lie in the file
// when its size was known, memory ranges do not wrap, do not overlap and are not empty.
struct ElfHeaders {
  bool is_64bit = false;
  std::uint64_t entry = 0;           // e_entry as it stands there
  std::vector<ElfSegment> segments;  // PT_LOAD, by file offset; at least one
  std::vector<FileRange> notes;      // PT_NOTE
  std::vector<std::uint64_t> note_alignments;
  std::uint64_t end = 0;  // of the ELF: what follows in the file is not part of it

  // The smallest range that holds all segments.
  GpaRange extent() const noexcept;
  // The physical address of the first instruction: e_entry when that lies in the file bytes of a
  // segment's memory, else e_entry taken as a virtual address. Nothing when it is neither.
  std::optional<Gpa> physical_entry() const noexcept;
  // True when an address lies in the file bytes of a segment's memory.
  bool holds_code(Gpa address) const noexcept;
};

// How much of a file must be at hand to parse its headers when the rest is not (yet) there.
inline constexpr std::size_t kElfHeaderWindow = 64 * 1024;

bool is_elf(std::span<const std::byte> bytes) noexcept;

// Parses what lies in `bytes`, the start of a file of `file_size` bytes (nothing: not known).
// Errors: kBadKernel naming the field and its value; the caller adds the file's name.
Result<ElfHeaders> parse_elf_headers(std::span<const std::byte> bytes,
                                     std::optional<std::uint64_t> file_size);

// The notes in one PT_NOTE segment with alignment `alignment` (4 or 8). Errors: kBadKernel.
Result<std::vector<ElfNote>> parse_elf_notes(std::span<const std::byte> bytes,
                                             std::uint64_t alignment);

// The 32-bit entry of the PVH boot protocol, from the note Xen/18 (XEN_ELFNOTE_PHYS32_ENTRY).
std::optional<Gpa> pvh_entry(std::span<const ElfNote> notes) noexcept;

}  // namespace vmm::loader

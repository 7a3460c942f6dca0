#include "vmm/loader/elf.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"
#include "base/le.h"

namespace vmm::loader {
namespace {

constexpr std::array<std::byte, 4> kMagic{std::byte{0x7f}, std::byte{'E'}, std::byte{'L'},
                                          std::byte{'F'}};
constexpr std::uint8_t kClass32 = 1;
constexpr std::uint8_t kClass64 = 2;
constexpr std::uint8_t kLittleEndian = 1;
constexpr std::uint16_t kTypeExecutable = 2;
constexpr std::uint16_t kTypeShared = 3;
constexpr std::uint16_t kMachine386 = 3;
constexpr std::uint16_t kMachineX86_64 = 62;
constexpr std::uint16_t kPhnumElsewhere = 0xffff;  // PN_XNUM
constexpr std::uint32_t kProgramLoad = 1;
constexpr std::uint32_t kProgramNote = 4;
// Far above what any kernel has; they bound the work on a hostile file.
constexpr std::size_t kMaxSegments = 64;
constexpr std::size_t kMaxNoteSegments = 16;
constexpr std::size_t kMaxNotes = 256;
constexpr std::uint64_t kMaxNoteSegment = 64 * 1024;
constexpr std::size_t kKeptDescription = 64;
constexpr std::size_t kKeptOwner = 32;

struct Elf32Header {
  std::array<std::uint8_t, 16> ident;
  Le16 type, machine;
  Le32 version;
  Le32 entry, phoff, shoff;
  Le32 flags;
  Le16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Elf32Header) == 52);

struct Elf64Header {
  std::array<std::uint8_t, 16> ident;
  Le16 type, machine;
  Le32 version;
  Le64 entry, phoff, shoff;
  Le32 flags;
  Le16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Elf64Header) == 64);

struct Elf32Program {
  Le32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
static_assert(sizeof(Elf32Program) == 32);

struct Elf64Program {
  Le32 type, flags;
  Le64 offset, vaddr, paddr, filesz, memsz, align;
};
static_assert(sizeof(Elf64Program) == 56);

template <typename T>
T copy_at(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename Program>
Result<FileRange> file_range(const Program& p, std::size_t index,
                             std::optional<std::uint64_t> file_size) {
  const auto end = checked_add<std::uint64_t>(p.offset, p.filesz);
  if (!end || (file_size && *end > *file_size)) {
    return fail(ErrorCode::kBadKernel,
                "program header {}: p_offset {:#x} + p_filesz {:#x} is past the end of the ELF "
                "file{}",
                index, std::uint64_t{p.offset}, std::uint64_t{p.filesz},
                file_size ? fmt::format(" of {} bytes", *file_size) : "");
  }
  return FileRange{p.offset, *end};
}

template <typename Program>
Result<ElfSegment> segment(const Program& p, std::size_t index,
                           std::optional<std::uint64_t> file_size) {
  ElfSegment s;
  s.index = static_cast<std::uint16_t>(index);
  s.file = VMM_TRY(file_range(p, index, file_size));
  s.virtual_address = p.vaddr;
  s.flags = p.flags;
  if (p.filesz > p.memsz) {
    return fail(ErrorCode::kBadKernel, "program header {}: p_filesz {:#x} is above p_memsz {:#x}",
                index, std::uint64_t{p.filesz}, std::uint64_t{p.memsz});
  }
  const auto memory = GpaRange::create(Gpa(p.paddr), p.memsz);
  if (!memory) {
    return fail(ErrorCode::kBadKernel, "program header {}: p_paddr {:#x} + p_memsz {:#x} wraps",
                index, std::uint64_t{p.paddr}, std::uint64_t{p.memsz});
  }
  s.memory = *memory;
  return s;
}

template <typename Program>
Result<void> add_program_header(ElfHeaders& elf, const Program& p, std::size_t index,
                                std::optional<std::uint64_t> file_size) {
  if (p.type == kProgramLoad && p.memsz != 0) {
    if (elf.segments.size() == kMaxSegments) {
      return fail(ErrorCode::kBadKernel, "program header {}: more than {} loadable segments", index,
                  kMaxSegments);
    }
    elf.segments.push_back(VMM_TRY(segment(p, index, file_size)));
    elf.end = std::max(elf.end, elf.segments.back().file.end);
  } else if (p.type == kProgramNote) {
    const FileRange notes = VMM_TRY(file_range(p, index, file_size));
    if (elf.notes.size() == kMaxNoteSegments || notes.size() > kMaxNoteSegment) {
      return fail(ErrorCode::kBadKernel,
                  "program header {}: note segment {} of {} bytes; at most {} of {} bytes are "
                  "accepted",
                  index, elf.notes.size(), notes.size(), kMaxNoteSegments, kMaxNoteSegment);
    }
    elf.notes.push_back(notes);
    elf.note_alignments.push_back(p.align);
    elf.end = std::max(elf.end, notes.end);
  }
  return {};
}

Result<void> check_overlap(std::vector<ElfSegment> by_address) {
  std::ranges::sort(by_address, {}, [](const ElfSegment& s) { return s.memory.base(); });
  for (std::size_t i = 1; i < by_address.size(); ++i) {
    if (by_address[i - 1].memory.overlaps(by_address[i].memory)) {
      return fail(ErrorCode::kBadKernel,
                  "program headers {} and {}: segments overlap in memory at {} and {}",
                  by_address[i - 1].index, by_address[i].index, by_address[i - 1].memory,
                  by_address[i].memory);
    }
  }
  return {};
}

template <typename Header, typename Program>
Result<ElfHeaders> parse(std::span<const std::byte> bytes, std::optional<std::uint64_t> file_size,
                         std::uint16_t machine) {
  if (bytes.size() < sizeof(Header)) {
    return fail(ErrorCode::kBadKernel, "ELF header is truncated: {} of {} bytes are there",
                bytes.size(), sizeof(Header));
  }
  const auto header = copy_at<Header>(bytes, 0);
  const auto bad = [](std::string_view field, std::uint64_t value, std::string_view why) {
    return fail(ErrorCode::kBadKernel, "ELF header: {} is {:#x}: {}", field, value, why);
  };
  if (header.ident[5] != kLittleEndian) return bad("EI_DATA", header.ident[5], "not little-endian");
  if (header.ident[6] != 1) return bad("EI_VERSION", header.ident[6], "must be 1");
  if (header.type != kTypeExecutable && header.type != kTypeShared) {
    return bad("e_type", header.type, "neither an executable (2) nor position-independent (3)");
  }
  if (header.machine != machine) {
    return bad("e_machine", header.machine, "not the x86 machine of this ELF class");
  }
  if (header.phnum == 0) return bad("e_phnum", 0, "there are no program headers, nothing to load");
  if (header.phnum == kPhnumElsewhere) return bad("e_phnum", header.phnum, "too many");
  if (header.phentsize != sizeof(Program)) {
    return bad("e_phentsize", header.phentsize, fmt::format("must be {}", sizeof(Program)));
  }
  const std::uint64_t table = std::uint64_t{header.phnum} * sizeof(Program);
  const auto table_end = checked_add<std::uint64_t>(header.phoff, table);
  if (!table_end || *table_end > bytes.size()) {
    return bad("e_phoff", header.phoff,
               fmt::format("{} program headers there do not lie in the first {} bytes of the file",
                           std::uint16_t{header.phnum}, bytes.size()));
  }

  ElfHeaders elf;
  elf.is_64bit = sizeof(Header) == sizeof(Elf64Header);
  elf.entry = header.entry;
  elf.end = *table_end;
  for (std::size_t i = 0; i < header.phnum; ++i) {
    const auto program =
        copy_at<Program>(bytes, static_cast<std::size_t>(header.phoff) + i * sizeof(Program));
    VMM_TRY(add_program_header(elf, program, i, file_size));
  }
  if (elf.segments.empty()) {
    return fail(ErrorCode::kBadKernel, "none of the {} ELF program headers is loadable",
                std::uint16_t{header.phnum});
  }
  VMM_TRY(check_overlap(elf.segments));
  std::ranges::sort(elf.segments, {}, [](const ElfSegment& s) { return s.file.begin; });

  // Section headers are not needed to load, they only tell where the ELF ends. A table that cannot
  // be is therefore taken as none.
  const auto sections_end = checked_add<std::uint64_t>(
      header.shoff, std::uint64_t{header.shnum} * std::uint64_t{header.shentsize});
  if (header.shoff != 0 && sections_end && (!file_size || *sections_end <= *file_size)) {
    elf.end = std::max(elf.end, *sections_end);
  }
  return elf;
}

std::string printable(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) {
    const char c = std::to_integer<char>(b);
    if (c == '\0') break;
    text += c >= ' ' && c <= '~' ? c : '?';
  }
  return text;
}

}  // namespace

GpaRange ElfHeaders::extent() const noexcept {
  Gpa low = segments.front().memory.base();
  Gpa high = segments.front().memory.end();
  for (const ElfSegment& s : segments) {
    low = std::min(low, s.memory.base());
    high = std::max(high, s.memory.end());
  }
  return GpaRange::create(low, high.offset_from(low)).value_or(GpaRange());
}

bool ElfHeaders::holds_code(Gpa address) const noexcept {
  return std::ranges::any_of(segments, [&](const ElfSegment& s) {
    return s.memory.contains(address) && address.offset_from(s.memory.base()) < s.file.size();
  });
}

std::optional<Gpa> ElfHeaders::physical_entry() const noexcept {
  if (holds_code(Gpa(entry))) return Gpa(entry);
  for (const ElfSegment& s : segments) {
    if (entry >= s.virtual_address && entry - s.virtual_address < s.file.size()) {
      return s.memory.base().plus(entry - s.virtual_address);
    }
  }
  return std::nullopt;
}

bool is_elf(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= kMagic.size() && std::ranges::equal(bytes.first(kMagic.size()), kMagic);
}

Result<ElfHeaders> parse_elf_headers(std::span<const std::byte> bytes,
                                     std::optional<std::uint64_t> file_size) {
  if (!is_elf(bytes)) return fail(ErrorCode::kBadKernel, "not an ELF file: the magic is missing");
  constexpr std::size_t kClassAt = 4;
  const auto elf_class =
      bytes.size() > kClassAt ? std::to_integer<std::uint8_t>(bytes[kClassAt]) : std::uint8_t{0};
  if (elf_class == kClass64) {
    return parse<Elf64Header, Elf64Program>(bytes, file_size, kMachineX86_64);
  }
  if (elf_class == kClass32) {
    return parse<Elf32Header, Elf32Program>(bytes, file_size, kMachine386);
  }
  return fail(ErrorCode::kBadKernel,
              "ELF header: EI_CLASS is {}: neither 32-bit (1) nor 64-bit (2)", elf_class);
}

Result<std::vector<ElfNote>> parse_elf_notes(std::span<const std::byte> bytes,
                                             std::uint64_t alignment) {
  struct NoteHeader {
    Le32 name_size, description_size, type;
  };
  const std::uint64_t align = alignment == 8 ? 8 : 4;
  std::vector<ElfNote> notes;
  std::size_t at = 0;
  while (bytes.size() - at >= sizeof(NoteHeader)) {
    const auto header = copy_at<NoteHeader>(bytes, at);
    const std::uint64_t left = bytes.size() - at;
    // 64-bit sums of 32-bit fields cannot wrap.
    const std::uint64_t name_end = sizeof(NoteHeader) + std::uint64_t{header.name_size};
    const std::uint64_t description = (name_end + align - 1) / align * align;
    const std::uint64_t end = description + std::uint64_t{header.description_size};
    if (name_end > left || end > left) {
      return fail(ErrorCode::kBadKernel,
                  "ELF note {} at byte {} of its segment: n_namesz {:#x} and n_descsz {:#x} do not "
                  "fit in the {} bytes left",
                  notes.size(), at, std::uint32_t{header.name_size},
                  std::uint32_t{header.description_size}, left);
    }
    if (notes.size() == kMaxNotes) {
      return fail(ErrorCode::kBadKernel, "more than {} ELF notes", kMaxNotes);
    }
    ElfNote note;
    note.owner = printable(bytes.subspan(at + sizeof(NoteHeader),
                                         std::min<std::size_t>(header.name_size, kKeptOwner)));
    note.type = header.type;
    const auto kept =
        bytes.subspan(at + static_cast<std::size_t>(description),
                      std::min<std::size_t>(header.description_size, kKeptDescription));
    note.description.assign(kept.begin(), kept.end());
    notes.push_back(std::move(note));
    at += static_cast<std::size_t>(std::min(left, (end + align - 1) / align * align));
  }
  return notes;
}

std::optional<Gpa> pvh_entry(std::span<const ElfNote> notes) noexcept {
  constexpr std::uint32_t kPhys32Entry = 18;  // xen/include/public/elfnote.h
  for (const ElfNote& note : notes) {
    const std::size_t size = note.description.size();
    if (note.owner == "Xen" && note.type == kPhys32Entry && (size == 4 || size == 8)) {
      return Gpa(load_le(note.description));
    }
  }
  return std::nullopt;
}

}  // namespace vmm::loader

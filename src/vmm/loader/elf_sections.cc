#include "vmm/loader/elf_sections.h"

#include "base/checked.h"
#include "base/le.h"

namespace vmm::loader {
namespace {

// Far above what kernels have; it bounds what is copied.
constexpr std::uint64_t kMaxSections = 256;
constexpr std::uint64_t kAlignment = 16;
constexpr std::uint64_t kTypeNoBits = 8;
constexpr std::uint64_t kFlagAlloc = 2;

struct Field {
  std::size_t offset;
  std::size_t size;
};

// Where the fields are, for each class.
struct Layout {
  std::size_t header_size;
  Field table_offset, entry_size, count, string_index;  // in the ELF header
  Field type, flags, address, offset, size;             // in a section header
  std::size_t section_size;
};
constexpr Layout kElf32{52,     {32, 4}, {46, 2}, {48, 2}, {50, 2}, {4, 4},
                        {8, 4}, {12, 4}, {16, 4}, {20, 4}, 40};
constexpr Layout kElf64{64,     {40, 8}, {58, 2}, {60, 2}, {62, 2}, {4, 4},
                        {8, 8}, {16, 8}, {24, 8}, {32, 8}, 64};

std::uint64_t get(std::span<const std::byte> bytes, const Field& field) {
  return load_le(bytes.subspan(field.offset, field.size));
}

// The bytes [offset, offset + size) of the file, or nothing when they are not all there.
std::optional<std::span<const std::byte>> part(std::span<const std::byte> file,
                                               std::uint64_t offset, std::uint64_t size) {
  const auto end = checked_add(offset, size);
  if (!end || *end > file.size()) return std::nullopt;
  return file.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(size));
}

}  // namespace

std::optional<ElfSections> load_elf_sections(std::span<const std::byte> file,
                                             const GuestMemory& memory, const GpaRange& room) {
  constexpr std::size_t kClassAt = 4;
  constexpr std::byte kClass64{2};
  if (file.size() < kElf32.header_size) return std::nullopt;
  const Layout& elf = file[kClassAt] == kClass64 ? kElf64 : kElf32;
  if (file.size() < elf.header_size) return std::nullopt;

  const std::uint64_t count = get(file, elf.count);
  const std::uint64_t names = get(file, elf.string_index);
  if (count == 0 || count > kMaxSections || names >= count ||
      get(file, elf.entry_size) != elf.section_size) {
    return std::nullopt;
  }
  const auto table = part(file, get(file, elf.table_offset), count * elf.section_size);
  if (!table) return std::nullopt;
  ElfSections sections;
  sections.count = static_cast<std::uint32_t>(count);
  sections.entry_size = static_cast<std::uint32_t>(elf.section_size);
  sections.string_index = static_cast<std::uint32_t>(names);
  sections.headers.assign(table->begin(), table->end());

  struct Copy {
    Gpa to;
    std::span<const std::byte> bytes;
  };
  std::vector<Copy> copies;
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto header = std::span(sections.headers).subspan(i * elf.section_size, elf.section_size);
    const bool in_image = (get(header, elf.flags) & kFlagAlloc) != 0;
    if (in_image || get(header, elf.type) == kTypeNoBits) continue;
    const auto bytes = part(file, get(header, elf.offset), get(header, elf.size));
    if (!bytes) return std::nullopt;
    if (bytes->empty()) continue;
    copies.push_back({Gpa(room.base().value + used), *bytes});
    store_le(header.subspan(elf.address.offset, elf.address.size), copies.back().to.value);
    // Cannot wrap: at most kMaxSections times a file's size.
    used = (used + bytes->size() + kAlignment - 1) / kAlignment * kAlignment;
    // Sections that share bytes of the file could add up to more than it has.
    if (used > room.size() || used > file.size() + count * kAlignment) return std::nullopt;
  }
  sections.memory = GpaRange::create(room.base(), used).value_or(GpaRange());
  if (!memory.contains(sections.memory)) return std::nullopt;
  for (const Copy& copy : copies) {
    if (!memory.write(copy.to, copy.bytes)) return std::nullopt;
  }
  return sections;
}

}  // namespace vmm::loader

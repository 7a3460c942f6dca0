#include "vmm/loader/relocations.h"

#include <algorithm>
#include <vector>

#include "base/le.h"

namespace vmm::loader {
namespace {

constexpr std::uint64_t kStartKernelMap = 0xffffffff80000000;  // Linux: __START_KERNEL_map
constexpr std::size_t kWord = 4;

std::uint32_t word_at(std::span<const std::byte> words, std::size_t index) {
  return static_cast<std::uint32_t>(load_le(words.subspan(index * kWord, kWord)));
}

// The linked physical address that a word of the table names.
std::uint64_t physical(std::uint32_t word) {
  const auto extended =
      static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(word)));
  return extended - kStartKernelMap;  // wraps for what is below the map: then no segment holds it
}

struct List {
  const char* name;
  std::span<const std::byte> words;
  std::size_t width;    // bytes at the target
  std::uint64_t delta;  // modulo 2^width
};

// Where the bytes of a segment are now, and where they were linked to be.
struct Loaded {
  std::uint64_t linked;
  std::uint64_t size;
};

bool lies_in(const Loaded& segment, std::uint64_t address, std::size_t width) {
  return address >= segment.linked && width <= segment.size &&
         address - segment.linked <= segment.size - width;
}

// Changes what lies in this segment; how many words that were.
std::size_t apply(const List& list, const Loaded& segment, std::span<std::byte> bytes) {
  std::size_t done = 0;
  for (std::size_t i = 0; i < list.words.size() / kWord; ++i) {
    const std::uint64_t address = physical(word_at(list.words, i));
    if (!lies_in(segment, address, list.width)) continue;
    const auto target =
        bytes.subspan(static_cast<std::size_t>(address - segment.linked), list.width);
    store_le(target, load_le(target) + list.delta);
    ++done;
  }
  return done;
}

}  // namespace

Result<std::optional<RelocationTable>> parse_relocations(std::span<const std::byte> tail) {
  if (tail.empty()) return std::nullopt;
  std::vector<std::size_t> zeroes;  // indices of the terminators
  const std::size_t words = tail.size() / kWord;
  for (std::size_t i = 0; i < words && zeroes.size() <= 3; ++i) {
    if (word_at(tail, i) == 0) zeroes.push_back(i);
  }
  if (tail.size() % kWord != 0 || zeroes.empty() || zeroes.front() != 0 || zeroes.size() > 3) {
    return fail(ErrorCode::kBadKernel,
                "the {} bytes behind the ELF are no relocation table: it has up to three lists, "
                "each behind a zero word",
                tail.size());
  }
  const auto list = [&](std::size_t n) {  // between terminator n and the next
    const std::size_t begin = (zeroes[n] + 1) * kWord;
    const std::size_t end = n + 1 < zeroes.size() ? zeroes[n + 1] * kWord : words * kWord;
    return tail.subspan(begin, end - begin);
  };
  RelocationTable table;
  table.add32 = list(zeroes.size() - 1);
  if (zeroes.size() >= 2) table.add64 = list(0);
  if (zeroes.size() == 3) table.subtract32 = list(1);
  return table;
}

Result<void> apply_relocations(const RelocationTable& table, const ElfHeaders& elf,
                               std::uint64_t slide, const GuestMemory& memory) {
  const List lists[] = {{"64-bit", table.add64, 8, slide},
                        {"inverse 32-bit", table.subtract32, 4, 0 - slide},
                        {"32-bit", table.add32, 4, slide}};
  for (const List& list : lists) {
    std::size_t done = 0;
    for (const ElfSegment& s : elf.segments) {
      const auto base = s.memory.base().plus(slide);
      const auto range = base ? GpaRange::create(*base, s.file.size()) : std::nullopt;
      if (!range || range->empty()) continue;
      const Loaded segment{s.memory.base().value, s.file.size()};
      done += VMM_TRY(memory.with_view(
          *range, [&](std::span<std::byte> bytes) { return apply(list, segment, bytes); }));
    }
    if (done == list.words.size() / kWord) continue;
    for (std::size_t i = 0; i < list.words.size() / kWord; ++i) {
      const std::uint32_t word = word_at(list.words, i);
      const bool inside = std::ranges::any_of(elf.segments, [&](const ElfSegment& s) {
        return lies_in({s.memory.base().value, s.file.size()}, physical(word), list.width);
      });
      if (inside) continue;
      return fail(ErrorCode::kBadKernel,
                  "relocation {} of the {} list: its address {:#x} lies in no loaded segment", i,
                  list.name, word);
    }
  }
  return {};
}

}  // namespace vmm::loader

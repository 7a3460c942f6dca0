#include "vmm/block/sector_map.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace vmm::block {

static_assert(std::endian::native == std::endian::little);

SectorMap::Run SectorMap::run_at(std::uint64_t first, std::uint64_t most) const noexcept {
  const Slot& start = pages_[first / kSectorsInPage];
  const auto bit = [](const Slot& slot, std::uint64_t sector) {
    return slot.words != nullptr &&
           ((*slot.words)[sector % kSectorsInPage / 64] >> (sector % 64) & 1) != 0;
  };
  const bool held = bit(start, first);
  std::uint64_t count = 0;
  while (count < most) {
    const std::uint64_t sector = first + count;
    const Slot& slot = pages_[sector / kSectorsInPage];
    std::uint64_t alike = 0;
    if (slot.words == nullptr) {
      if (held) break;
      alike = kSectorsInPage - sector % kSectorsInPage;
    } else {
      const std::uint64_t word = (*slot.words)[sector % kSectorsInPage / 64] >> (sector % 64);
      const auto room = static_cast<int>(64 - sector % 64);
      alike = static_cast<std::uint64_t>(
          std::min(held ? std::countr_one(word) : std::countr_zero(word), room));
      if (alike == 0) break;
    }
    count += alike;
  }
  return {held, std::min(count, most)};
}

void SectorMap::set(std::uint64_t first, std::uint64_t count) {
  while (count != 0) {
    Slot& slot = pages_[first / kSectorsInPage];
    if (slot.words == nullptr) slot.words = std::make_unique<Words>();
    const std::uint64_t n = std::min(count, 64 - first % 64);
    const std::uint64_t ones = n == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
    std::uint64_t& word = (*slot.words)[first % kSectorsInPage / 64];
    const std::uint64_t before = word;
    word |= ones << (first % 64);
    slot.changed |= word != before;
    first += n;
    count -= n;
  }
}

std::vector<SectorMap::Page> SectorMap::take_changed() {
  std::vector<Page> taken;
  for (std::uint64_t index = 0; index < pages_.size(); ++index) {
    Slot& slot = pages_[index];
    if (!slot.changed) continue;
    slot.changed = false;
    taken.push_back({index, std::make_unique<Words>(*slot.words)});
  }
  return taken;
}

void SectorMap::give_back(std::span<const Page> taken) {
  for (const Page& page : taken) pages_[page.index].changed = true;
}

void SectorMap::load(std::uint64_t index, std::span<const std::byte, kPageSize> bytes) {
  Words words;
  std::memcpy(words.data(), bytes.data(), kPageSize);
  // Of the last page the disk may use a part only.
  const std::uint64_t used = std::min(kSectorsInPage, sectors_ - index * kSectorsInPage);
  for (std::uint64_t i = 0; i < words.size(); ++i) {
    if (64 * i >= used) {
      words[i] = 0;
    } else if (used - 64 * i < 64) {
      words[i] &= (std::uint64_t{1} << (used - 64 * i)) - 1;
    }
  }
  if (std::all_of(words.begin(), words.end(), [](std::uint64_t word) { return word == 0; })) return;
  pages_[index].words = std::make_unique<Words>(words);
}

}  // namespace vmm::block

#include "vmm/trace/exit_places.h"

namespace vmm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::uint32_t kThere = 1U << 31;
constexpr std::uint32_t kWrite = 1U << 8;

}  // namespace

[[gnu::hot]] void ExitPlaces::count(const ExitRecord& record) noexcept {
  const std::uint32_t what = kThere | (record.is_write ? kWrite : 0) | record.kind;
  // Fibonacci hashing: devices' registers are neighbours, and pages apart.
  const std::uint64_t mixed = (record.address ^ std::uint64_t{what} << 40) * 0x9e3779b97f4a7c15;
  auto& set = sets_[static_cast<std::size_t>(mixed >> 58)];
  Entry* rarest = &set.front();
  for (Entry& entry : set) {
    const std::uint32_t there = entry.what.load(kRelaxed);
    const std::uint64_t count = entry.count.load(kRelaxed);
    if (there == what && entry.address.load(kRelaxed) == record.address) {
      entry.count.store(count + 1, kRelaxed);
      return;
    }
    if (count < rarest->count.load(kRelaxed)) rarest = &entry;
  }
  unlisted_.store(unlisted_.load(kRelaxed) + rarest->count.load(kRelaxed), kRelaxed);
  rarest->count.store(0, kRelaxed);
  rarest->address.store(record.address, kRelaxed);
  rarest->what.store(what, kRelaxed);
  rarest->count.store(1, kRelaxed);
}

void ExitPlaces::add_to(std::map<ExitPlace, std::uint64_t>& places) const {
  for (const auto& set : sets_) {
    for (const Entry& entry : set) {
      const std::uint64_t count = entry.count.load(kRelaxed);
      const std::uint32_t what = entry.what.load(kRelaxed);
      if (count == 0 || what == 0) continue;
      places[{static_cast<std::uint8_t>(what), (what & kWrite) != 0,
              entry.address.load(kRelaxed)}] += count;
    }
  }
}

}  // namespace vmm

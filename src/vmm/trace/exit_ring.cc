#include "vmm/trace/exit_ring.h"

#include <algorithm>

namespace vmm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr unsigned kWidthShift = 8;
constexpr unsigned kWriteShift = 16;

std::uint64_t packed(const ExitRecord& record) noexcept {
  return record.kind | std::uint64_t{record.width} << kWidthShift |
         std::uint64_t{record.is_write} << kWriteShift;
}

}  // namespace

ExitRing::ExitRing(std::uint32_t size)
    : size_(std::bit_floor(size)), slots_(size == 0 ? nullptr : std::make_unique<Slot[]>(size_)) {}

[[gnu::hot]] void ExitRing::begin(const ExitRecord& record) noexcept {
  const std::uint64_t number = count_.load(kRelaxed);
  // Whoever sees one of these words sees also that the slot's former exit is gone.
  std::atomic_thread_fence(std::memory_order_release);
  Slot& words = slot(number);
  words[kTime].store(TscTime::now(), kRelaxed);
  words[kEnd].store(0, kRelaxed);
  words[kRip].store(record.rip, kRelaxed);
  words[kAddress].store(record.address, kRelaxed);
  words[kValue].store(record.value, kRelaxed);
  words[kWhat].store(packed(record), kRelaxed);
  count_.store(number + 1, std::memory_order_release);
}

[[gnu::hot]] void ExitRing::finish(std::optional<std::uint64_t> read) noexcept {
  Slot& words = slot(count_.load(kRelaxed) - 1);
  if (read) words[kValue].store(*read, kRelaxed);
  words[kEnd].store(TscTime::now(), kRelaxed);
}

std::vector<ExitRecord> ExitRing::last(std::size_t most) const {
  std::vector<ExitRecord> records;
  if (!enabled()) return records;
  const std::uint64_t end = count_.load(std::memory_order_acquire);
  const std::uint64_t wanted = std::min<std::uint64_t>({end, size_, most});
  std::vector<std::array<std::uint64_t, kWords>> copies(static_cast<std::size_t>(wanted));
  for (std::uint64_t i = 0; i < wanted; ++i) {
    const Slot& words = slot(end - wanted + i);
    for (std::size_t word = 0; word < kWords; ++word) {
      copies[static_cast<std::size_t>(i)][word] = words[word].load(kRelaxed);
    }
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  // The exit with the number `now` may be on its way into the slot of now - size_.
  const std::uint64_t now = count_.load(kRelaxed);
  const std::uint64_t first_whole = now < size_ ? 0 : now - size_ + 1;

  const TscTime::Scale scale = clock_.scale();
  for (std::uint64_t i = 0; i < wanted; ++i) {
    const std::uint64_t number = end - wanted + i;
    if (number < first_whole) continue;
    const auto& words = copies[static_cast<std::size_t>(i)];
    ExitRecord record;
    record.number = number;
    record.time = scale.time_of(words[kTime]);
    if (words[kEnd] > words[kTime]) record.duration = scale.time_of(words[kEnd]) - record.time;
    record.rip = words[kRip];
    record.address = words[kAddress];
    record.value = words[kValue];
    record.kind = static_cast<std::uint8_t>(words[kWhat]);
    record.width = static_cast<std::uint8_t>(words[kWhat] >> kWidthShift);
    record.is_write = (words[kWhat] >> kWriteShift & 1) != 0;
    records.push_back(record);
  }
  return records;
}

}  // namespace vmm

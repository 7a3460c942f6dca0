#include "vmm/debug/tape.h"

#include <algorithm>
#include <cstring>

#include "base/le.h"

namespace vmm::debug {
namespace {

// RF and TF are the debugger's own (SDM volume 1, 3.4.3).
constexpr std::uint64_t kNotCompared = x86::kFlagTf | std::uint64_t{1} << 16;

// RAX to R15, RIP, RFLAGS.
constexpr std::size_t kWords = 18;
using Words = std::array<std::uint64_t, kWords>;

Words words_of(const x86::Registers& registers) noexcept {
  Words words{};
  std::copy(registers.gpr.begin(), registers.gpr.end(), words.begin());
  words[16] = registers.rip;
  words[17] = registers.rflags;
  return words;
}

}  // namespace

std::uint32_t Tape::sum_of(const x86::Registers& registers) noexcept {
  Words words = words_of(registers);
  words[17] &= ~kNotCompared;
  // Each step can be undone, so that one register that differs is always seen before the fold.
  std::uint64_t sum = 0;
  for (const std::uint64_t word : words) {
    sum = (sum ^ word) * 0x9e3779b97f4a7c15;
    sum ^= sum >> 29;
  }
  return static_cast<std::uint32_t>(sum ^ sum >> 32);
}

void Tape::add(Kind kind, std::span<const std::byte> bytes) {
  const std::size_t size = std::min(bytes.size(), kMostRead);
  entries_.push_back({.tick = static_cast<std::uint32_t>(sums_.size()),
                      .offset = static_cast<std::uint32_t>(bytes_.size()),
                      .size = static_cast<std::uint16_t>(size),
                      .kind = kind});
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
}

void Tape::add_read(std::span<const std::byte> value) { add(Kind::kRead, value); }

void Tape::add_msr(std::optional<std::uint64_t> answer) {
  if (!answer) return add(Kind::kFault, {});
  std::array<std::byte, sizeof(std::uint64_t)> bytes{};
  store_le(std::span(bytes), *answer);
  add(Kind::kMsr, bytes);
}

void Tape::add_cr8(std::uint8_t value) {
  const std::byte byte{value};
  add(Kind::kCr8, {&byte, 1});
}

void Tape::end_delivery(std::uint8_t vector, const x86::Registers& after) {
  const std::byte byte{vector};
  add(Kind::kInterrupt, {&byte, 1});
  sums_.push_back(sum_of(after));
}

void Tape::end_instruction(const x86::Registers& after, bool decided_outside) {
  if (decided_outside) {
    const Words words = words_of(after);
    add(Kind::kRegisters, std::as_bytes(std::span(words)));
  }
  sums_.push_back(sum_of(after));
}

std::span<const std::byte> Tape::bytes_of(const Entry& entry) const noexcept {
  return std::span(bytes_).subspan(entry.offset, entry.size);
}

const Tape::Entry* Tape::peek(const Place& place, Kind kind) const noexcept {
  if (place.entry >= entries_.size()) return nullptr;
  const Entry& next = entries_[place.entry];
  return next.tick == place.tick && next.kind == kind ? &next : nullptr;
}

bool Tape::take_read(Place& place, std::span<std::byte> value) const {
  const Entry* const next = peek(place, Kind::kRead);
  if (next == nullptr || next->size != value.size()) return false;
  std::ranges::copy(bytes_of(*next), value.begin());
  ++place.entry;
  return true;
}

std::optional<Tape::Answer> Tape::take_msr(Place& place) const {
  if (peek(place, Kind::kFault) != nullptr) {
    ++place.entry;
    return Answer{};
  }
  const Entry* const next = peek(place, Kind::kMsr);
  if (next == nullptr) return std::nullopt;
  ++place.entry;
  return Answer{load_le(bytes_of(*next))};
}

std::optional<std::uint8_t> Tape::take_cr8(Place& place) const {
  const Entry* const next = peek(place, Kind::kCr8);
  if (next == nullptr) return std::nullopt;
  ++place.entry;
  return std::to_integer<std::uint8_t>(bytes_[next->offset]);
}

std::optional<std::uint8_t> Tape::delivers(const Place& place) const {
  const Entry* const next = peek(place, Kind::kInterrupt);
  if (next == nullptr) return std::nullopt;
  return std::to_integer<std::uint8_t>(bytes_[next->offset]);
}

std::optional<bool> Tape::end_tick(Place& place, x86::Registers& after) const {
  if (place.tick >= ticks()) return std::nullopt;
  bool changed = false;
  if (peek(place, Kind::kInterrupt) != nullptr) {
    ++place.entry;
  } else if (const Entry* const next = peek(place, Kind::kRegisters)) {
    Words words{};
    std::memcpy(words.data(), bytes_of(*next).data(), sizeof words);
    std::copy_n(words.begin(), after.gpr.size(), after.gpr.begin());
    after.rip = words[16];
    after.rflags = words[17];
    changed = true;
    ++place.entry;
  }
  const bool all_taken = place.entry >= entries_.size() || entries_[place.entry].tick > place.tick;
  if (!all_taken || sums_[place.tick] != sum_of(after)) return std::nullopt;
  ++place.tick;
  return changed;
}

}  // namespace vmm::debug

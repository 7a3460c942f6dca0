#include "vmm/interpreter/line_table.h"

#include <cstring>
#include <memory>

namespace vmm::interpreter {

LineTable::LineTable(unsigned slot_bits)
    : slot_bits_(slot_bits),
      room_(make_zero_array<std::byte>(kRoom)),
      slots_(make_zero_array<Slot>(slots())) {}

const Line* LineTable::line_in(const Slot& slot) const noexcept {
  const std::uint32_t unit = slot.load(std::memory_order_acquire);
  return unit != 0 ? reinterpret_cast<const Line*>(room_.get() + unit * kUnit) : nullptr;
}

[[gnu::hot]] const Line* LineTable::find(std::uint64_t place,
                                         const std::byte* code) const noexcept {
  const Slot* const set = set_of(place);
  for (std::size_t way = 0; way < kWays; ++way) {
    const Line* const line = line_in(set[way]);
    if (line == nullptr) return nullptr;  // slots are filled in order
    if (line->place != place) continue;
    return std::memcmp(line->code(), code, line->size) == 0 ? line : nullptr;
  }
  return nullptr;
}

LineTable::Slot* LineTable::slot_for(std::uint64_t place) noexcept {
  Slot* const set = set_of(place);
  for (std::size_t way = 0; way < kWays; ++way) {
    const Line* const line = line_in(set[way]);
    if (line == nullptr || line->place == place) return &set[way];
  }
  return nullptr;
}

const Line* LineTable::add(Slot& slot, std::uint64_t place, const Block& block) noexcept {
  const std::size_t insns = block.count * sizeof(Insn);
  const std::size_t size = sizeof(Line) + insns + block.size;
  if (kRoom - used_ < size) return nullptr;
  std::byte* const at = room_.get() + used_;
  const auto* const line = new (at) Line{.place = place, .size = block.size, .count = block.count};
  std::uninitialized_copy_n(block.insns.begin(), block.count,
                            reinterpret_cast<Insn*>(at + sizeof(Line)));
  std::memcpy(at + sizeof(Line) + insns, block.code.data(), block.size);
  if (slot.load(std::memory_order_relaxed) == 0) ++filled_;
  // Whoever finds it finds it whole.
  slot.store(static_cast<std::uint32_t>(used_ / kUnit), std::memory_order_release);
  used_ += (size + kUnit - 1) / kUnit * kUnit;
  return line;
}

void LineTable::forget() noexcept {
  for (std::size_t i = 0; i < slots(); ++i) slots_[i].store(0, std::memory_order_relaxed);
  used_ = kUnit;
  filled_ = 0;
}

void LineTable::grow() {
  slots_ = make_zero_array<Slot>(std::size_t{1} << kMostSlotBits);
  slot_bits_ = kMostSlotBits;
  used_ = kUnit;
  filled_ = 0;
}

const Line* SharedLines::add(std::uint64_t place, const Block& block) {
  const std::lock_guard lock(mutex_);
  // The first ones stay: lines that take each other's place would use up the room. Code that is
  // changed now and then may have half of it.
  LineTable::Slot* const slot = table_.slot_for(place);
  const bool stays =
      slot == nullptr || (slot->load(std::memory_order_relaxed) != 0 && table_.half_full());
  return stays ? nullptr : table_.add(*slot, place, block);
}

const Line* LineCache::keep_as_own(std::uint64_t place) {
  LineTable::Slot* const slot = own_->slot_for(place);
  return own_->add(slot != nullptr ? *slot : own_->slot_to_take(place), place, decoded_);
}

const Line* LineCache::keep(std::uint64_t place) {
  if (const Line* const line = shared_.add(place, decoded_)) return line;
  if (!own_) {
    own_ = std::make_unique<LineTable>(kFewSlotBits);
  } else if (own_->crowded()) {
    own_->grow();
  }
  if (const Line* const line = keep_as_own(place)) return line;
  own_->forget();
  return keep_as_own(place);
}

[[gnu::hot]] std::span<const Insn> LineCache::find(std::uint64_t place,
                                                   std::span<const std::byte> code) {
  const Line* line = shared_.find(place, code.data());
  if (line == nullptr && own_) line = own_->find(place, code.data());
  if (line == nullptr) {
    if (!decode_block(code, decoded_)) return {};
    line = keep(place);
  }
  return line->insns();
}

}  // namespace vmm::interpreter

#include "vmm/interpreter/line_table.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace vmm::interpreter {

void LineTable::Free::operator()(void* memory) const noexcept { std::free(memory); }

// calloc: what is not used is not there.
LineTable::LineTable()
    : room_(static_cast<std::byte*>(std::calloc(kRoom, 1))),
      slots_(static_cast<Slot*>(std::calloc(kSlots, sizeof(Slot)))) {
  if (!room_ || !slots_) throw std::bad_alloc();
}

const Line* LineTable::line_in(const Slot& slot) const noexcept {
  const std::uint32_t unit = slot.load(std::memory_order_acquire);
  return unit != 0 ? reinterpret_cast<const Line*>(room_.get() + unit * kUnit) : nullptr;
}

const Line* LineTable::find(std::uint64_t place, const std::byte* code) const noexcept {
  const Line* const line = in_slot_of(place);
  if (line == nullptr || line->place != place) return nullptr;
  return std::memcmp(line->code(), code, line->size) == 0 ? line : nullptr;
}

const Line* LineTable::add(std::uint64_t place, const Block& block) noexcept {
  const std::size_t insns = block.count * sizeof(Insn);
  const std::size_t size = sizeof(Line) + insns + block.size;
  if (kRoom - used_ < size) return nullptr;
  std::byte* const at = room_.get() + used_;
  const auto* const line = new (at) Line{.place = place, .size = block.size, .count = block.count};
  std::uninitialized_copy_n(block.insns.begin(), block.count,
                            reinterpret_cast<Insn*>(at + sizeof(Line)));
  std::memcpy(at + sizeof(Line) + insns, block.code.data(), block.size);
  // Whoever finds it finds it whole.
  slots_[slot_of(place)].store(static_cast<std::uint32_t>(used_ / kUnit),
                               std::memory_order_release);
  used_ += (size + kUnit - 1) / kUnit * kUnit;
  return line;
}

void LineTable::forget() noexcept {
  for (std::size_t i = 0; i < kSlots; ++i) slots_[i].store(0, std::memory_order_relaxed);
  used_ = kUnit;
}

const Line* SharedLines::add(std::uint64_t place, const Block& block) {
  const std::lock_guard lock(mutex_);
  // The first stays: lines that take each other's place would use up the room. Code that is changed
  // now and then may have half of it.
  const Line* const old = table_.in_slot_of(place);
  const bool stays = old != nullptr && (old->place != place || table_.half_full());
  return stays ? nullptr : table_.add(place, block);
}

const Line* LineCache::keep(std::uint64_t place) {
  if (const Line* const line = shared_.add(place, decoded_)) return line;
  if (!own_) own_ = std::make_unique<LineTable>();
  if (const Line* const line = own_->add(place, decoded_)) return line;
  own_->forget();
  return own_->add(place, decoded_);
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

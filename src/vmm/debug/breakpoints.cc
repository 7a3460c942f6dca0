#include "vmm/debug/breakpoints.h"

#include <algorithm>
#include <utility>

namespace vmm::debug {

Result<bool> PlantedBytes::cover(const GuestMemory& memory, Gpa at, Byte& byte) {
  auto now = VMM_TRY(memory.load<std::uint8_t>(at));
  const auto int3 = std::to_integer<std::uint8_t>(kInt3);
  if (byte.uses != 0 && now == int3) return false;
  // The guest may write there at this moment: its byte is the one that INT3 replaces.
  while (!VMM_TRY(memory.compare_exchange<std::uint8_t>(at, now, int3))) {
  }
  byte.guests = std::byte{now};
  return true;
}

Result<void> PlantedBytes::plant(const GuestMemory& memory, Gpa at) {
  const std::lock_guard lock(mutex_);
  Byte byte = bytes_.contains(at) ? bytes_[at] : Byte{};
  VMM_TRY(cover(memory, at, byte));
  ++byte.uses;
  bytes_[at] = byte;
  return {};
}

namespace {

// A guest that wrote over INT3 meanwhile keeps what it wrote.
void restore(const GuestMemory& memory, Gpa at, std::byte guests) {
  auto expected = std::to_integer<std::uint8_t>(kInt3);
  (void)memory.compare_exchange<std::uint8_t>(at, expected, std::to_integer<std::uint8_t>(guests));
}

}  // namespace

void PlantedBytes::remove(const GuestMemory& memory, Gpa at) {
  const std::lock_guard lock(mutex_);
  const auto found = bytes_.find(at);
  if (found == bytes_.end() || --found->second.uses != 0) return;
  restore(memory, at, found->second.guests);
  bytes_.erase(found);
}

void PlantedBytes::remove_all(const GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  for (const auto& [at, byte] : bytes_) restore(memory, at, byte.guests);
  bytes_.clear();
}

void PlantedBytes::lift(const GuestMemory& memory) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [at, byte] : bytes_) restore(memory, at, byte.guests);
}

unsigned PlantedBytes::renew(const GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  unsigned renewed = 0;
  for (auto& [at, byte] : bytes_) {
    const auto covered = cover(memory, at, byte);
    if (covered && *covered) ++renewed;
  }
  return renewed;
}

bool PlantedBytes::contains(Gpa at) const {
  const std::lock_guard lock(mutex_);
  return bytes_.contains(at);
}

bool PlantedBytes::empty() const {
  const std::lock_guard lock(mutex_);
  return bytes_.empty();
}

void PlantedBytes::hide(Gpa from, std::span<std::byte> bytes) const {
  const std::lock_guard lock(mutex_);
  for (auto at = bytes_.lower_bound(from); at != bytes_.end(); ++at) {
    const std::uint64_t offset = at->first.offset_from(from);
    if (offset >= bytes.size()) break;
    // Unless the guest has written over it: then that is what is there.
    if (bytes[offset] == kInt3) bytes[offset] = at->second.guests;
  }
}

Result<void> PlantedBytes::write(const GuestMemory& memory, Gpa to,
                                 std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  VMM_TRY(memory.write(to, bytes));
  for (auto at = bytes_.lower_bound(to); at != bytes_.end(); ++at) {
    const std::uint64_t offset = at->first.offset_from(to);
    if (offset >= bytes.size()) break;
    at->second.guests = bytes[offset];
    VMM_TRY(memory.store<std::uint8_t>(at->first, std::to_integer<std::uint8_t>(kInt3)));
  }
  return {};
}

const Breakpoints::Entry* Breakpoints::find(const Breakpoint& point) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.point == point; });
  return found == entries_.end() ? nullptr : &*found;
}

bool Breakpoints::set_conditions(const Breakpoint& point, std::vector<StopCondition> conditions) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.point == point; });
  if (found == entries_.end()) return false;
  found->conditions = std::move(conditions);
  return true;
}

std::optional<Breakpoints::Entry> Breakpoints::take(const Breakpoint& point) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.point == point; });
  if (found == entries_.end()) return std::nullopt;
  Entry entry = *found;
  entries_.erase(found);
  return entry;
}

std::vector<kvm::DebugSlot> watch_slots(const Breakpoint& point) {
  if (point.kind == BreakpointKind::kSoftware || point.kind == BreakpointKind::kHardware) {
    return {kvm::DebugSlot{.address = point.address}};
  }
  const auto kind = point.kind == BreakpointKind::kWrite ? kvm::DebugSlot::Kind::kWrite
                                                         : kvm::DebugSlot::Kind::kReadOrWrite;
  std::vector<kvm::DebugSlot> slots;
  std::uint64_t at = point.address;
  std::uint64_t left = point.size;
  // A few more than there are registers, so that it is seen that they are too many.
  while (left != 0 && slots.size() < 8) {
    std::uint8_t size = 8;
    while (size > left || at % size != 0) size = static_cast<std::uint8_t>(size / 2);
    slots.push_back({at, kind, size});
    at += size;
    left -= size;
  }
  return slots;
}

std::vector<kvm::DebugSlot> Breakpoints::slots() const {
  std::vector<kvm::DebugSlot> slots;
  for (const Entry& entry : entries_) {
    if (!entry.in_registers()) continue;
    for (const kvm::DebugSlot& slot : watch_slots(entry.point)) {
      if (std::find(slots.begin(), slots.end(), slot) == slots.end()) slots.push_back(slot);
    }
  }
  return slots;
}

}  // namespace vmm::debug

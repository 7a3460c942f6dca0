#include "devices/pci/hotplug.h"

#include <utility>

#include "base/assert.h"
#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::pci {
namespace {

// Offsets in the window.
constexpr std::uint64_t kAdded = 0;
constexpr std::uint64_t kLeaving = 4;
constexpr std::uint64_t kEject = 8;

constexpr std::uint32_t kHostBridge = 1U << 0;

std::uint32_t bit(unsigned slot) {
  VMM_ASSERT(slot >= 1 && slot < Hotplug::kSlots);
  return std::uint32_t{1} << slot;
}

}  // namespace

Result<void> Hotplug::State::validate() const {
  if (((added | leaving) & kHostBridge) != 0) {
    return fail(ErrorCode::kBadState, "The PCI host bridge cannot be plugged in or out");
  }
  return {};
}

Hotplug::Hotplug(std::string id, Ports ports) : ports_(std::move(ports)), id_(std::move(id)) {}

void Hotplug::announce_added(unsigned slot) {
  s_.added |= bit(slot);
  s_.leaving &= ~bit(slot);
  settle();
}

void Hotplug::announce_leaving(unsigned slot) {
  s_.leaving |= bit(slot);
  settle();
}

void Hotplug::withdraw(unsigned slot) {
  s_.added &= ~bit(slot);
  s_.leaving &= ~bit(slot);
  settle();
}

void Hotplug::read(const IoAccess& access, std::span<std::byte> data) {
  std::uint32_t value = 0;
  if (access.offset == kAdded) value = std::exchange(s_.added, 0);
  if (access.offset == kLeaving) value = std::exchange(s_.leaving, 0);
  store_le(data, value);
  settle();
}

void Hotplug::write(const IoAccess& access, std::span<const std::byte> data) {
  if (access.offset != kEject) return;
  const std::uint32_t slots = static_cast<std::uint32_t>(load_le(data)) & ~kHostBridge;
  if (slots != 0 && ports_.on_eject) ports_.on_eject(slots);
}

void Hotplug::reset() {
  s_ = State{};
  settle();
}

void Hotplug::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Hotplug::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm::pci

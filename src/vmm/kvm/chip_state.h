// State that KVM keeps of a machine besides its vCPUs: interrupt chips, timer, clock, written
// pages.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "devices/blob.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

// One counter of KVM_GET_PIT2.
struct PitChannelState {
  std::uint32_t count = 0;
  std::uint16_t latched_count = 0;
  std::uint8_t count_latched = 0, status_latched = 0, status = 0, read_state = 0, write_state = 0,
               write_latch = 0, rw_mode = 0, mode = 0, bcd = 0, gate = 0;
  std::int64_t loaded_ago = 0;  // nanoseconds before the state was read
  bool operator==(const PitChannelState&) const = default;
  static void fields(auto&& f) {
    f("count", &PitChannelState::count);
    f("latched_count", &PitChannelState::latched_count);
    f("count_latched", &PitChannelState::count_latched);
    f("status_latched", &PitChannelState::status_latched);
    f("status", &PitChannelState::status);
    f("read_state", &PitChannelState::read_state);
    f("write_state", &PitChannelState::write_state);
    f("write_latch", &PitChannelState::write_latch);
    f("rw_mode", &PitChannelState::rw_mode);
    f("mode", &PitChannelState::mode);
    f("bcd", &PitChannelState::bcd);
    f("gate", &PitChannelState::gate);
    f("loaded_ago", &PitChannelState::loaded_ago);
  }
};

// The chips that KVM_CREATE_IRQCHIP and KVM_CREATE_PIT2 make.
struct ChipState {
  std::array<Blob, 3> irqchips;  // both 8259A and the I/O APIC, as KVM has them
  std::array<PitChannelState, 3> pit;
  std::uint32_t pit_flags = 0;
  bool operator==(const ChipState&) const = default;
  static void fields(auto&& f) {
    f("irqchips", &ChipState::irqchips);
    f("pit", &ChipState::pit);
    f("pit_flags", &ChipState::pit_flags);
  }
};

// While no vCPU runs.
Result<ChipState> save_chips(const VmFd& vm);
// Errors: kBadState when the parts have wrong sizes; what KVM refuses.
Result<void> restore_chips(const VmFd& vm, const ChipState& state);

// KVM_GET_DIRTY_LOG: adds the pages of a slot that the guest has written since the last call to
// `bitmap`, which has a bit for each page of the slot (DirtyPages::words). The slot logs.
Result<void> take_dirty_log(const VmFd& vm, std::uint32_t slot, std::span<std::uint64_t> bitmap);

}  // namespace vmm::kvm

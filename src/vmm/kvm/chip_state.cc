#include "vmm/kvm/chip_state.h"

#include <linux/kvm.h>

#include <chrono>
#include <cstring>
#include <vector>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {
namespace {

// What KVM loads counters by: CLOCK_MONOTONIC.
std::int64_t host_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

PitChannelState from_kvm(const kvm_pit_channel_state& k, std::int64_t now) {
  return {.count = k.count,
          .latched_count = k.latched_count,
          .count_latched = k.count_latched,
          .status_latched = k.status_latched,
          .status = k.status,
          .read_state = k.read_state,
          .write_state = k.write_state,
          .write_latch = k.write_latch,
          .rw_mode = k.rw_mode,
          .mode = k.mode,
          .bcd = k.bcd,
          .gate = k.gate,
          .loaded_ago = now - k.count_load_time};
}

kvm_pit_channel_state to_kvm(const PitChannelState& s, std::int64_t now) {
  kvm_pit_channel_state k{};
  k.count = s.count;
  k.latched_count = s.latched_count;
  k.count_latched = s.count_latched;
  k.status_latched = s.status_latched;
  k.status = s.status;
  k.read_state = s.read_state;
  k.write_state = s.write_state;
  k.write_latch = s.write_latch;
  k.rw_mode = s.rw_mode;
  k.mode = s.mode;
  k.bcd = s.bcd;
  k.gate = s.gate;
  k.count_load_time = static_cast<std::int64_t>(static_cast<std::uint64_t>(now) -
                                                static_cast<std::uint64_t>(s.loaded_ago));
  return k;
}

}  // namespace

Result<ChipState> save_chips(const VmFd& vm) {
  ChipState state;
  // Before the chips: what it raises meanwhile is in them.
  kvm_pit_state2 pit{};
  VMM_TRY(ioctl_pointer(vm.fd(), KVM_GET_PIT2, &pit, "KVM_GET_PIT2", "the VM"));
  const std::int64_t now = host_now();
  for (std::size_t i = 0; i < state.pit.size(); ++i) state.pit[i] = from_kvm(pit.channels[i], now);
  state.pit_flags = pit.flags;
  for (std::uint32_t id = 0; id < state.irqchips.size(); ++id) {
    kvm_irqchip chip{};
    chip.chip_id = id;
    VMM_TRY(ioctl_pointer(vm.fd(), KVM_GET_IRQCHIP, &chip, "KVM_GET_IRQCHIP", "the VM"));
    const auto bytes = std::as_bytes(std::span(&chip.chip, 1));
    state.irqchips[id].bytes.assign(bytes.begin(), bytes.end());
  }
  return state;
}

Result<void> restore_chips(const VmFd& vm, const ChipState& state) {
  for (const Blob& chip : state.irqchips) {
    if (chip.bytes.size() != sizeof(kvm_irqchip::chip)) {
      return fail(ErrorCode::kBadState, "The state of an interrupt chip has {} bytes instead of {}",
                  chip.bytes.size(), sizeof(kvm_irqchip::chip));
    }
  }
  for (const PitChannelState& channel : state.pit) {
    if (channel.count > 0x10000) {
      return fail(ErrorCode::kBadState, "A counter of the interval timer is set to {}",
                  channel.count);
    }
  }
  kvm_pit_state2 pit{};
  const std::int64_t now = host_now();
  for (std::size_t i = 0; i < state.pit.size(); ++i) pit.channels[i] = to_kvm(state.pit[i], now);
  pit.flags = state.pit_flags;
  VMM_TRY(ioctl_pointer(vm.fd(), KVM_SET_PIT2, &pit, "KVM_SET_PIT2", "the VM"));
  // After the timer, whose start may raise its interrupt.
  for (std::uint32_t id = 0; id < state.irqchips.size(); ++id) {
    kvm_irqchip chip{};
    chip.chip_id = id;
    std::memcpy(&chip.chip, state.irqchips[id].bytes.data(), sizeof chip.chip);
    VMM_TRY(ioctl_pointer(vm.fd(), KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP", "the VM"));
  }
  return {};
}

Result<void> take_dirty_log(const VmFd& vm, std::uint32_t slot, std::span<std::uint64_t> bitmap) {
  std::vector<std::uint64_t> fresh(bitmap.size());
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = fresh.data();
  VMM_TRY(ioctl_pointer(vm.fd(), KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", "the VM"));
  for (std::size_t i = 0; i < bitmap.size(); ++i) bitmap[i] |= fresh[i];
  return {};
}

}  // namespace vmm::kvm

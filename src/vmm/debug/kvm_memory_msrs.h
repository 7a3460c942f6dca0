// MSRs by which a guest lets KVM write to its memory whenever KVM likes: kvmclock, steal time,
// asynchronous page faults, PV EOI (Documentation/virt/kvm/x86/msr.rst). What comes through them
// cannot be recorded.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace vmm::debug {

inline constexpr std::string_view kKvmWrites =
    "the guest uses kvmclock, or another way by which KVM writes to its memory (for Linux: "
    "no-kvmclock no-steal-acc on its command line)";

// Those that are one word, whose bit 0 says that KVM is to write.
inline constexpr auto kKvmMemoryMsrs =
    std::to_array<std::uint32_t>({0x12, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04});
// Those that make it write the time of day at once.
inline constexpr auto kWallClockMsrs = std::to_array<std::uint32_t>({0x11, 0x4b564d00});

// Whether KVM would write because of this value.
constexpr bool makes_kvm_write(std::uint32_t msr, std::uint64_t value) noexcept {
  for (const std::uint32_t known : kWallClockMsrs) {
    if (msr == known) return true;
  }
  for (const std::uint32_t known : kKvmMemoryMsrs) {
    if (msr == known) return (value & 1) != 0;
  }
  return false;
}

}  // namespace vmm::debug

// What the flight recorder keeps of an exit (docs/observing.md).
#pragma once

#include <cstdint>
#include <string_view>

#include "vmm/vcpu_exit.h"

namespace vmm {

// One exit of a vCPU. Value type.
struct ExitRecord {
  std::uint64_t number = 0;   // of this CPU's exits since the machine was made, from 0
  std::int64_t time = 0;      // when KVM_RUN returned: nanoseconds of std::chrono::steady_clock
  std::int64_t duration = 0;  // nanoseconds until it had been handled; 0 while it is
  std::uint64_t rip = 0;      // as KVM tells it; 0 when it does not (KVM_CAP_SYNC_REGS)
  // PIO: port; MMIO: guest-physical address; MSR: its number; debug trap: where the CPU is.
  std::uint64_t address = 0;
  // PIO (its first item), MMIO and MSR: what was written, or what the guest got; emulation failure:
  // the instruction's first bytes, as a little-endian number; others: KVM's reason.
  std::uint64_t value = 0;
  std::uint8_t kind = 0;   // index into kExitNames
  std::uint8_t width = 0;  // bytes of an access
  bool is_write = false;

  // "pio", "mmio", ...
  std::string_view name() const noexcept {
    return kind < kExitNames.size() ? kExitNames[kind] : std::string_view("unknown");
  }
  // Whether it is an access to an address: PIO, MMIO or an MSR.
  bool is_access() const noexcept { return width != 0; }
};

}  // namespace vmm

// What KVM_RUN came back with, decoded: one plain type for each kind of exit, free of KVM's own
// structures.
//
// A variant without a default case in its visitors: a new kind of exit is a compile error until
// somebody decides what it means.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <variant>

#include "memory/address.h"

namespace vmm {

// One PIO instruction; a string instruction transfers `count` items to or from the same port.
struct PioExit {
  std::uint16_t port = 0;
  std::uint8_t width = 0;  // bytes of one item: 1, 2 or 4
  std::uint32_t count = 0;
  bool is_write = false;
  std::span<std::byte> data;  // count * width bytes in the shared page: filled by us for a read
};

struct MmioExit {
  Gpa address;
  bool is_write = false;
  std::span<std::byte> data;  // 1 to 8 bytes in the shared page: filled by us for a read
};

struct HltExit {};          // HLT without an in-kernel local APIC
struct ShutdownExit {};     // triple fault
struct IrqWindowExit {};    // the guest can take an interrupt now
struct TprExit {};          // the guest lowered CR8, without an in-kernel local APIC
struct InterruptedExit {};  // a signal, or immediate_exit was set: nothing happened in the guest

struct SystemEventExit {
  std::uint32_t type = 0;
};

struct DebugTrapExit {
  std::uint32_t exception = 0;
  std::uint64_t pc = 0, dr6 = 0, dr7 = 0;
};

struct FailEntryExit {
  std::uint64_t hardware_reason = 0;
};

// KVM could not emulate an instruction (suberror KVM_INTERNAL_ERROR_EMULATION).
struct EmulationFailureExit {
  std::array<std::uint8_t, 15> bytes{};  // at RIP, as far as KVM could fetch them
  std::uint8_t size = 0;                 // how many of them are valid; 0 when KVM did not say
};

struct InternalErrorExit {
  std::uint32_t suberror = 0;
  std::array<std::uint64_t, 16> data{};
  std::uint32_t words = 0;  // how many of `data` KVM filled in
};

struct IoapicEoiExit {
  std::uint8_t vector = 0;
};

// RDMSR or WRMSR that the MSR filter, or KVM's ignorance, sent to us.
struct MsrExit {
  std::uint32_t index = 0;
  bool is_write = false;
  bool filtered = false;    // true: our own filter asked for it; false: KVM does not know the MSR
  std::uint64_t value = 0;  // of a write
};

// The host had no page for an access of the guest to its memory (KVM_RUN failed with EFAULT).
struct MemoryFaultExit {};

struct UnknownExit {
  std::uint32_t reason = 0;
};

using VcpuExit =
    std::variant<PioExit, MmioExit, HltExit, ShutdownExit, IrqWindowExit, TprExit, InterruptedExit,
                 SystemEventExit, DebugTrapExit, FailEntryExit, EmulationFailureExit,
                 InternalErrorExit, IoapicEoiExit, MsrExit, MemoryFaultExit, UnknownExit>;

// An exit is copied with plain stores: it stands on the way of every one of them.
static_assert(std::is_trivially_copyable_v<VcpuExit>);

// Names of the alternatives by index, for statistics and traces.
inline constexpr std::array<std::string_view, std::variant_size_v<VcpuExit>> kExitNames{
    "pio",         "mmio",   "hlt",          "shutdown",   "irq-window",        "tpr",
    "interrupted", "system", "debug",        "fail-entry", "emulation-failure", "internal-error",
    "ioapic-eoi",  "msr",    "memory-fault", "unknown",
};

}  // namespace vmm

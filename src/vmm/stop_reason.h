// Why a guest stopped running: never an Error, always one of these.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

#include "devices/device.h"
#include "vmm/x86/registers.h"

namespace vmm {

enum class StopReason : std::uint8_t {
  kPowerOff,    // ACPI S5
  kReset,       // the guest asked for a reset
  kGuestPanic,  // the guest said that it panicked (pvpanic, or a panic message followed by its end)
  kWatchdog,    // the guest's watchdog expired, and was to stop it (WatchdogAction::kStop)
  kHalted,      // every CPU is halted with interrupts off: nothing can wake the guest
  kTripleFault,       // shutdown condition (SDM volume 3, 6.15)
  kDebugExit,         // a value was written to the debug-exit port
  kEmulationFailure,  // KVM met an instruction that neither it nor completion could finish
  kEntryFailure,      // the processor refused the guest's state
  kInternalError,     // KVM reported an error of its own
  kMemoryFault,       // the host has no page for the guest's memory: a file was cut, a disk is full
  kDeadline,          // the caller's deadline passed
  kCancelled,         // the caller asked for an end
  kCondition,         // what Vm::run_until() waited for, Vm::step(), or Hypercall::stop()
};

// The name as written above without the k, in words ("power-off", "triple fault").
std::string_view to_string(StopReason reason) noexcept;

// What there is to say about a stop. Value type.
struct StopInfo {
  StopReason reason = StopReason::kCancelled;
  VcpuId vcpu = {};         // the CPU that caused it
  std::uint32_t value = 0;  // kDebugExit: what was written; kEntryFailure: the hardware's reason
  std::string detail = {};  // one sentence on the cause, may be empty
  std::string report = {};  // many lines: registers, instruction, page walk; empty for orderly ends
  // Of an end from which the guest cannot go on (Vm::describe() has both for any stop): the CPU's
  // registers and the instructions around RIP, if they are not in the report; and the end of what
  // COM1 has sent.
  std::string state = {};
  std::string console = {};
};

// All of it, for people: one line on the reason, and more where there is more. Its text has what
// the guest has printed, control characters included.
std::string to_text(const StopInfo& stop);
std::ostream& operator<<(std::ostream& out, const StopInfo& stop);

}  // namespace vmm

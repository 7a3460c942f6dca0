#include "vmm/stop_reason.h"

namespace vmm {

std::string_view to_string(StopReason reason) noexcept {
  switch (reason) {
    case StopReason::kPowerOff:
      return "power-off";
    case StopReason::kReset:
      return "reset";
    case StopReason::kGuestPanic:
      return "guest panic";
    case StopReason::kWatchdog:
      return "watchdog";
    case StopReason::kHalted:
      return "halted with interrupts off";
    case StopReason::kTripleFault:
      return "triple fault";
    case StopReason::kDebugExit:
      return "debug exit";
    case StopReason::kEmulationFailure:
      return "emulation failure";
    case StopReason::kEntryFailure:
      return "entry failure";
    case StopReason::kInternalError:
      return "KVM internal error";
    case StopReason::kMemoryFault:
      return "memory fault";
    case StopReason::kDeadline:
      return "deadline";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kCondition:
      return "condition met";
  }
  return "unknown";
}

}  // namespace vmm

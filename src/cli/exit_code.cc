#include "cli/exit_code.h"

namespace vmm::cli {

int exit_code(const StopInfo& stop) noexcept {
  switch (stop.reason) {
    case StopReason::kPowerOff:
      return kExitOk;
    case StopReason::kReset:
      return kExitReset;
    case StopReason::kGuestPanic:
      return kExitPanic;
    case StopReason::kWatchdog:
      return kExitWatchdog;
    case StopReason::kHalted:
      return kExitHalted;
    case StopReason::kTripleFault:
      return kExitTripleFault;
    case StopReason::kDebugExit:
      return static_cast<int>(((stop.value << 1) | 1U) & 0xffU);
    case StopReason::kEmulationFailure:
      return kExitEmulationFailure;
    case StopReason::kEntryFailure:
      return kExitEntryFailure;
    case StopReason::kInternalError:
      return kExitInternalError;
    case StopReason::kMemoryFault:
      return kExitMemoryFault;
    case StopReason::kDeadline:
      return kExitTimeout;
    case StopReason::kCancelled:
    case StopReason::kCondition:  // the command waits for none
      return kExitInterrupted;
  }
  return kExitHostError;
}

ExitCode exit_code(const Error& error) noexcept {
  switch (error.code()) {
    case ErrorCode::kBadConfig:
      return kExitUsage;
    case ErrorCode::kBadKernel:
      return kExitBadKernel;
    case ErrorCode::kNoKvm:
      return kExitNoKvm;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    case ErrorCode::kBadState:
    case ErrorCode::kUnsupported:
    case ErrorCode::kOutOfRange:
    case ErrorCode::kResource:
    case ErrorCode::kIo:
    case ErrorCode::kTimeout:
      return kExitHostError;
  }
  return kExitHostError;
}

}  // namespace vmm::cli

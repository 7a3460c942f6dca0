#include "vmm/stop_reason.h"

#include <fmt/format.h>

#include <ostream>

namespace vmm {
namespace {

void add_lines(std::string& text, std::string_view lines) {
  if (lines.empty()) return;
  text += '\n';
  text += lines;
}

}  // namespace

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

std::string to_text(const StopInfo& stop) {
  std::string text(to_string(stop.reason));
  if (stop.reason == StopReason::kDebugExit) text += fmt::format(" with the value {}", stop.value);
  if (!stop.detail.empty()) text += ": " + stop.detail;
  add_lines(text, stop.report);
  add_lines(text, stop.state);
  if (!stop.console.empty()) add_lines(text, "the end of the console:\n" + stop.console);
  return text;
}

std::ostream& operator<<(std::ostream& out, const StopInfo& stop) { return out << to_text(stop); }

}  // namespace vmm

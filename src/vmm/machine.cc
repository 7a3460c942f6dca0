#include "vmm/machine.h"

#include <fmt/format.h>

#include "base/size.h"
#include "vmm/pmem_file.h"

namespace vmm {

StopReason Machine::call_it_panic_if_it_is(StopReason reason) const {
  const bool may_follow_panic = reason == StopReason::kReset || reason == StopReason::kHalted ||
                                reason == StopReason::kTripleFault;
  return may_follow_panic && console.panicked() ? StopReason::kGuestPanic : reason;
}

std::optional<std::string> Machine::lost_file() const {
  for (std::size_t i = 0; i < pmem_files.size(); ++i) {
    const auto left = pmem_files[i]->cut_to();
    if (!left) continue;
    return fmt::format("the file '{}' of pmem{} was cut to {} while the guest used {} of it",
                       pmem_files[i]->name(), i, format_size(*left),
                       format_size(pmem_files[i]->mapping()->size()));
  }
  return std::nullopt;
}

void Machine::request(GuestRequest request, std::uint32_t value) {
  StopInfo stop;
  stop.value = value;
  switch (request) {
    case GuestRequest::kReset:
      stop.reason = call_it_panic_if_it_is(StopReason::kReset);
      stop.detail = stop.reason == StopReason::kGuestPanic
                        ? "the guest reset itself after a panic message"
                        : "the guest asked for a reset";
      break;
    case GuestRequest::kPowerOff:
      stop.reason = StopReason::kPowerOff;
      break;
    case GuestRequest::kDebugExit:
      stop.reason = StopReason::kDebugExit;
      stop.detail = fmt::format("the guest wrote {:#x} to the debug-exit port", value);
      break;
    case GuestRequest::kPanic:
      stop.reason = StopReason::kGuestPanic;
      stop.detail = fmt::format("the guest reported a panic (pvpanic event {:#x})", value);
      break;
  }
  stops.post(std::move(stop));
}

}  // namespace vmm

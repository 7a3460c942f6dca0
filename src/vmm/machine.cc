#include "vmm/machine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/size.h"
#include "vmm/pmem_file.h"

namespace vmm {

void Machine::add(DeviceRef device) {
  roster.with([&](Roster& all) { all.devices.push_back(std::move(device)); });
}

void Machine::add(VirtioHandle device) {
  roster.with([&](Roster& all) {
    all.devices.push_back(device.outside);
    all.virtio.push_back(std::move(device));
  });
}

StopReason Machine::call_it_panic_if_it_is(StopReason reason) const {
  const bool may_follow_panic = reason == StopReason::kReset || reason == StopReason::kHalted ||
                                reason == StopReason::kTripleFault;
  const bool panicked =
      console.panicked() || std::any_of(console_ports.begin(), console_ports.end(),
                                        [](const auto& port) { return port->output.panicked(); });
  return may_follow_panic && panicked ? StopReason::kGuestPanic : reason;
}

Result<void> Machine::check_new_id(std::string_view id) {
  const bool taken = roster.with([id](const Roster& all) {
    return std::any_of(all.devices.begin(), all.devices.end(),
                       [id](const DeviceRef& other) { return other.id() == id; });
  });
  if (!taken) return {};
  return fail(ErrorCode::kBadConfig,
              "There is a device '{}' in the machine already: choose another identifier", id);
}

const HypercallPort* Machine::hypercall_at(std::uint16_t port) const noexcept {
  const auto found = std::find_if(hypercalls.begin(), hypercalls.end(),
                                  [port](const HypercallPort& one) { return one.port == port; });
  return found != hypercalls.end() ? &*found : nullptr;
}

bool Machine::watchdog_counts() const {
  return watchdog && watchdog->with([](const I6300esb& device) { return device.counting(); });
}

namespace {

StopReason reason_for(WatchdogAction action) {
  switch (action) {
    case WatchdogAction::kPowerOff:
      return StopReason::kPowerOff;
    case WatchdogAction::kPanic:
      return StopReason::kGuestPanic;
    case WatchdogAction::kStop:
      return StopReason::kWatchdog;
    case WatchdogAction::kReset:
    case WatchdogAction::kNone:
      break;
  }
  return StopReason::kReset;
}

}  // namespace

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
    case GuestRequest::kSleep:
      asleep.store(true, std::memory_order_release);
      return stops.notice();
    case GuestRequest::kWake:
      return stops.notice();
    case GuestRequest::kDebugExit:
      stop.reason = StopReason::kDebugExit;
      stop.detail = fmt::format("the guest wrote {:#x} to the debug-exit port", value);
      break;
    case GuestRequest::kPanic:
      stop.reason = StopReason::kGuestPanic;
      stop.detail = fmt::format("the guest reported a panic (pvpanic event {:#x})", value);
      break;
    case GuestRequest::kWatchdog:
      if (watchdog_action == WatchdogAction::kNone) return;
      stop.reason = call_it_panic_if_it_is(reason_for(watchdog_action));
      stop.detail = "the watchdog expired";
      break;
  }
  stops.post(std::move(stop));
}

}  // namespace vmm

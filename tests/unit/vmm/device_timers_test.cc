#include "vmm/device_timers.h"

#include <gtest/gtest.h>

#include "devices/acpi_pm.h"

namespace vmm {
namespace {

TEST(DeviceTimers, LetGoOfDevicesAtTheirEnd) {
  const auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  const GuestClock clock;
  std::weak_ptr<DeviceTimers::Slot> seen;
  {
    DeviceTimers timers(**loop, clock);
    const auto slot = timers.make_slot();
    seen = slot;
    // As machines do it: the device calls its slot.
    const auto pm = make_device<AcpiPm>(
        "acpi_pm", AcpiPm::Ports{.sci = {}, .clock = &clock, .events = nullptr, .on_rearm = [slot] {
                                   slot->rearm();
                                 }});
    timers.bind(slot, pm, pm.with([](AcpiPm& d) -> TimedDevice* { return &d; }));
  }
  EXPECT_TRUE(seen.expired());
}

}  // namespace
}  // namespace vmm

// What a guest asks of the machine through a device: posted, never waited for.
#pragma once

#include <cstdint>

namespace vmm {

enum class GuestRequest : std::uint8_t {
  kReset,      // reset the whole machine (i8042 pulse, ACPI reset register, port 0x92, 0xcf9)
  kPowerOff,   // ACPI S5
  kSleep,      // ACPI S3
  kWake,       // a guest in S3 has reason to wake up
  kDebugExit,  // a value written to the debug-exit port
  kPanic,      // the guest says that it has panicked (pvpanic)
  kWatchdog,   // the guest has not fed its watchdog in time
};

// Receives requests from devices; called with the device's lock held, on any thread. Must only note
// the request.
class MachineEvents {
 public:
  virtual ~MachineEvents() = default;
  // `value` is what was written for kDebugExit and kPanic, else 0.
  virtual void request(GuestRequest request, std::uint32_t value) = 0;
};

}  // namespace vmm

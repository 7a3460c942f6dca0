// The contract between the machine and an emulated device: six methods and no more.
//
// A device is a pure state machine. It knows no KVM, thread, descriptor or clock of its own; what
// it needs from outside (an interrupt line, a byte sink, a Clock) is injected. It never waits and
// never fails because of its guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace vmm {

class StateWriter;
class StateReader;

// Number of a virtual CPU, from 0; the bootstrap processor is 0.
enum class VcpuId : std::uint32_t {};

// One guest access, already clipped to the window it hit.
struct IoAccess {
  std::uint64_t offset = 0;   // into the device (Window::offset included): what it decides by
  std::uint64_t address = 0;  // absolute port or GPA: only for messages
  VcpuId vcpu{};
};

// Externally synchronised: the machine holds the device's lock around each call. `data` has one of
// the widths that the device's window declares.
class Device {
 public:
  virtual ~Device() = default;

  // Unique in a machine, stable over versions: the key of its saved state ("uart0").
  virtual std::string_view id() const noexcept = 0;
  // `data` arrives filled with 0xff, what an empty bus reads.
  virtual void read(const IoAccess& access, std::span<std::byte> data) = 0;
  virtual void write(const IoAccess& access, std::span<const std::byte> data) = 0;
  // Back to the state after power-on.
  virtual void reset() = 0;
  virtual void save(StateWriter& writer) const = 0;
  // All or nothing: on error the device is as it was. Drives interrupt lines to the restored level.
  virtual Result<void> restore(const StateReader& reader) = 0;
};

}  // namespace vmm

// How a function's BARs become windows on the bus: what an endpoint asks of its host bridge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "devices/bus.h"

namespace vmm::pci {

// One function's side of the host bridge's address decoder. Called with the device's lock held;
// must not call back into the device.
class BarWindows {
 public:
  virtual ~BarWindows() = default;
  // A BAR of the function, before the guest runs: `shape` has its size, a power of two, its widths
  // and its offset in the device. Returns the address that it has from power-on; 0 when there is
  // no room for it.
  virtual std::uint64_t add(std::size_t bar, const Window& shape) = 0;
  // The guest wants the BAR to be decoded there; nothing: nowhere. Whether anything answers there
  // is up to the bridge: addresses that it does not pass on are left alone, and so is what belongs
  // to another BAR for as long as it does.
  virtual void place(std::size_t bar, std::optional<std::uint64_t> address) = 0;
};

}  // namespace vmm::pci

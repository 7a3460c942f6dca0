// The host bridge's address decoder: which BARs answer on the MMIO bus, and where.
//
// Rules:
//  - Only addresses in the bridge's windows are passed on. So no BAR ever lies over RAM, an
//    interrupt controller or configuration space, whatever a guest writes into it.
//  - A BAR whose place is another's gets it when the other one leaves.
//  - A BAR that goes from one good place to another is at both or at none at no moment.
//
// Threats: a guest may move BARs at any rate and to any address. A change costs what Bus::move()
// costs, plus as much again for each BAR that waits for a place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "devices/bus.h"
#include "devices/device_ref.h"
#include "memory/address.h"

namespace vmm::pci {

// Thread-safe. Its lock is taken with a device's held; under it only the bus's own and what
// `on_moved` takes.
class BarMap {
 public:
  using Id = std::size_t;
  // Where a BAR is decoded now; nothing: nowhere. Called with the lock held: must not come back.
  using OnMoved = std::function<void(std::optional<std::uint64_t>)>;

  // `bus` is borrowed and outlives this. BARs get their first addresses in `windows`, in order.
  BarMap(Bus& bus, std::vector<GpaRange> windows);

  // An address that is nobody's yet, aligned to `size`, a power of two; nothing when none is left.
  std::optional<std::uint64_t> assign(std::uint64_t size);

  // A BAR of that device; nowhere yet. `shape` says size, widths and offset.
  Id add(DeviceRef device, const Window& shape, OnMoved on_moved = {});
  // It is gone: what waits for its place gets it. Its number may be another's from then on.
  void remove(Id bar);
  // What the guest wants.
  void place(Id bar, std::optional<std::uint64_t> address);

  // Where it is decoded; nothing: nowhere.
  std::optional<std::uint64_t> decoded(Id bar) const;

 private:
  struct Bar {
    DeviceRef device;
    Window shape;
    OnMoved on_moved;
    std::optional<std::uint64_t> wanted = {};
    std::optional<std::uint64_t> decoded = {};
  };
  bool passes(const Bar& bar) const;
  bool try_place(Bar& bar);
  void set_decoded(Bar& bar, std::optional<std::uint64_t> address);
  void leave(Bar& bar);
  void place_waiting();

  Bus& bus_;
  const std::vector<GpaRange> windows_;
  mutable std::mutex mutex_;         // guards all below, and orders changes of the bus
  std::vector<std::uint64_t> free_;  // of each window: the first address not assigned
  std::vector<std::optional<Bar>> bars_;
};

}  // namespace vmm::pci

// A virtio device as a PCI function of a machine: slot, BARs, interrupts, doorbells.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/result.h"
#include "vmm/doorbells.h"
#include "vmm/machine.h"
#include "vmm/virtio_devices.h"

namespace vmm {

// Doorbells in a BAR: where they are follows the BAR, and there are none while the device is not at
// work. Thread-safe; may be called with a device's lock held.
class BarDoorbells {
 public:
  BarDoorbells(std::shared_ptr<Doorbells> bells, std::uint16_t queues)
      : bells_(std::move(bells)), queues_(queues) {}

  void on_active(bool active);
  void on_moved(std::optional<std::uint64_t> bar);

 private:
  void settle();  // with the lock held

  const std::shared_ptr<Doorbells> bells_;
  const std::uint16_t queues_;
  std::mutex mutex_;  // guards the rest; then only that of the doorbells
  bool active_ = false;
  std::optional<std::uint64_t> bar_;
};

// Where it is. Errors: those of PciBus::next_seat(); the host's.
Result<PciBus::Seat> attach_virtio_pci(Machine& machine, VirtioParts parts);

}  // namespace vmm

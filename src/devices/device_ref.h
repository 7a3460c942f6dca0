// A device together with its lock: how the machine, the bus and the event loop share one.
//
// Lock order: a device's lock is taken with no bus lock held, and nothing but interrupt pins, sinks
// and MachineEvents (leaves that never call back) is reached while it is held.
#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "devices/device.h"

namespace vmm {

// A copyable handle with shared ownership: the device lives as long as anyone can still reach it,
// an access in flight included. Any thread.
class DeviceRef {
 public:
  explicit DeviceRef(std::unique_ptr<Device> device)
      : cell_(std::make_shared<Cell>(std::move(device))) {}

  // Runs the function with the device's lock held and returns what it returns. The function must
  // not wait, and must not come back to this device.
  template <typename Fn>
  decltype(auto) with(Fn&& fn) const {
    std::lock_guard<std::mutex> guard(cell_->mutex);
    return std::forward<Fn>(fn)(*cell_->device);
  }

  // Constant for a device's life, so it needs no lock.
  std::string_view id() const noexcept { return cell_->device->id(); }

  // Whether both lead to the same device.
  bool operator==(const DeviceRef&) const noexcept = default;

 protected:
  struct Cell {
    explicit Cell(std::unique_ptr<Device> d) : device(std::move(d)) {}
    std::mutex mutex;
    const std::unique_ptr<Device> device;
  };
  const std::shared_ptr<Cell>& cell() const noexcept { return cell_; }

 private:
  friend class Bus;
  std::shared_ptr<Cell> cell_;
};

// A DeviceRef that remembers what it leads to, for whoever feeds the device from the host's side:
// `uart.with([&](Uart16550& u) { return u.push_input(bytes); })`.
template <typename D>
class DeviceHandle : public DeviceRef {
 public:
  explicit DeviceHandle(std::unique_ptr<D> device)
      : DeviceHandle(device.get(), std::move(device)) {}

  template <typename Fn>
  decltype(auto) with(Fn&& fn) const {
    std::lock_guard<std::mutex> guard(cell()->mutex);
    return std::forward<Fn>(fn)(*device_);
  }

 private:
  // By reference: the pointer is still there when `plain` is computed, in whichever order.
  DeviceHandle(D* plain, std::unique_ptr<D>&& device)
      : DeviceRef(std::move(device)), device_(plain) {}
  D* device_;  // owned by the cell
};

// `make_device<Uart16550>("uart0", Uart16550::Ports{...})`
template <typename D, typename... Args>
DeviceHandle<D> make_device(Args&&... args) {
  return DeviceHandle<D>(std::make_unique<D>(std::forward<Args>(args)...));
}

}  // namespace vmm

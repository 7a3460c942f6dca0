// Where a device is plugged in: configuration accesses come to it from the host bridge, and its
// BARs become windows.
//
//   FunctionPort port(bars);
//   auto device = make_device<SomeFunction>("id", ..., Endpoint::Ports{.windows = &port});
//   port.bind(device);
//   bridge.with([&](HostBridge& b) { return b.attach(slot, port); });
//
// Lock order: the host bridge's (held around configuration accesses), the device's, BarMap's.
#pragma once

#include <array>
#include <optional>

#include "devices/device_ref.h"
#include "devices/pci/bar_map.h"
#include "devices/pci/bar_windows.h"
#include "devices/pci/config_space.h"
#include "devices/pci/host_bridge.h"

namespace vmm::pci {

class FunctionPort final : public Function, public BarWindows {
 public:
  // `bars` is borrowed and outlives this; this outlives the device.
  explicit FunctionPort(BarMap& bars) : bars_(bars) {}

  // Told where a BAR is decoded, from bind() on. Called with locks held: must not come back.
  void watch(std::size_t bar, BarMap::OnMoved on_moved);
  // The device that was built with this port, an owner of an Endpoint.
  void bind(DeviceRef device);
  // It is to leave: its BARs are not decoded any more. With its lock held, and when the host bridge
  // does not know this port any more; then no access of a guest's finds it again. The port may be
  // used for the next device, which is made after prepare().
  void unbind();
  // Before a device is built: whether its BARs have addresses from power-on, as firmware gives
  // them, or none, as when it comes while the guest runs.
  void prepare(bool addresses);

  std::uint64_t add(std::size_t bar, const Window& shape) override;
  void place(std::size_t bar, std::optional<std::uint64_t> address) override;
  void read_config(std::uint64_t offset, std::span<std::byte> data) override;
  void write_config(std::uint64_t offset, std::span<const std::byte> data) override;

 private:
  struct Bar {
    std::optional<Window> shape = {};
    BarMap::OnMoved on_moved = {};
    std::optional<BarMap::Id> id = {};
    std::optional<std::uint64_t> wanted = {};  // before bind()
  };
  BarMap& bars_;
  bool addresses_ = true;
  std::array<Bar, ConfigSpace::kBars> all_;
  std::optional<DeviceRef> device_;
};

}  // namespace vmm::pci

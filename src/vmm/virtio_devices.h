// Puts the virtio devices of a configuration on a machine, each behind its transport.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "devices/device_ref.h"
#include "devices/virtio/device.h"
#include "devices/virtio/transport_core.h"
#include "vmm/config.h"
#include "vmm/machine.h"

namespace vmm {

// A device and what of the host works for it.
struct VirtioParts {
  std::unique_ptr<virtio::Device> device;
  // Called once, when the device stands behind its transport: a backend that finishes requests on
  // the event loop's thread takes the device's lock through this.
  std::function<void(DeviceRef)> attached = {};
  // Descriptors that it waits for.
  std::vector<Doorbells::Source> sources = {};
  // Whose threads serve its queues, these in turn: 0 is the event loop's, which does it all when
  // there are none.
  std::vector<std::uint32_t> queue_threads = {};
};

// The device that a configuration means, the `number`-th of its kind unless it has a name.
Result<VirtioParts> make_virtio_device(const VirtioConfig& config, Machine& machine,
                                       std::size_t number);
// How the doorbells of a device poll its queues.
QueuePolling polling_of(virtio::TransportCore& core);

// Errors: what the host lacks for a device; kBadConfig when there is no room for one more.
Result<void> add_virtio_devices(const VmConfig& config, Machine& machine);

// The one transport that this file does itself; the index chooses address and interrupt.
Result<void> attach_virtio_mmio(Machine& machine, std::size_t index, VirtioParts parts);

}  // namespace vmm

// A virtio device that the embedding program brings along.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/clock.h"
#include "devices/device_ref.h"
#include "devices/machine_events.h"
#include "memory/guest_memory.h"

namespace vmm {

namespace virtio {
class Device;
}

// What a machine has for such a device besides virtio::Host. It lives as long as the device does.
struct VirtioOwnHost {
  std::string id = {};  // VirtioOwnConfig's name: what the device is to be called
  const Clock* clock = nullptr;
  const GuestMemory* memory = nullptr;
  MachineEvents* events = nullptr;  // to end the guest: reset, power-off, a debug-exit value
};

struct VirtioOwnConfig {
  // A descriptor that the device waits for; the function is called on the thread of one of its
  // queues with the device's lock held, while the guest runs.
  struct Source {
    int fd = -1;  // borrowed; level-triggered
    std::function<void(virtio::Device& device)> on_ready = {};
    std::uint16_t queue = 0;  // whose thread waits for it (queue_threads)
  };

  std::string name = {};  // "own0", unique in a machine; empty: by its place among these
  // Makes it, once for each machine, on the thread of Vm::create(): a virtio::FunctionDevice, or
  // what derives from virtio::Device (devices/virtio/). An error is Vm::create()'s.
  std::function<Result<std::unique_ptr<virtio::Device>>(const VirtioOwnHost& host)> make = {};
  // Called once, when it stands behind its transport: DeviceRef::with() is how other threads of the
  // program get at it, until the machine ends.
  std::function<void(const DeviceRef& transport, virtio::Device& device)> attached = {};
  std::vector<Source> sources = {};
  std::vector<std::uint32_t> queue_threads = {};  // as a disk's
  // As EmbedderDevice::savable. A machine that goes on from a snapshot is given `make` anew.
  bool savable = false;
};

}  // namespace vmm

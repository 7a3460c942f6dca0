#include "vmm/add_embedder_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace vmm {
namespace {

// RAM has memory slots: what lies there never comes to a bus.
Result<void> check_not_ram(const Window& window, std::string_view id, const GuestMemory& memory) {
  for (const GuestRegion& region : memory.regions()) {
    const std::uint64_t begin = region.range().base().value;
    const std::uint64_t last = begin + (region.range().size() - 1);
    if (window.size == 0 || window.base > last) continue;
    if (window.base + (window.size - 1) < begin) continue;
    return fail(ErrorCode::kBadConfig, "The device '{}' would be at {:#x}, where RAM is", id,
                window.base);
  }
  return {};
}

Result<void> check_new(std::string_view id, Machine& machine) {
  const bool taken = machine.roster.with([id](const Roster& roster) {
    return std::any_of(roster.devices.begin(), roster.devices.end(),
                       [id](const DeviceRef& other) { return other.id() == id; });
  });
  if (!taken) return {};
  return fail(ErrorCode::kBadConfig,
              "There is a device '{}' in the machine already: choose "
              "another identifier",
              id);
}

}  // namespace

Result<void> add_embedder_device(const EmbedderDevice& device, Machine& machine) {
  DeviceHost host{.irqs = {},
                  .messages = machine.messages,
                  .clock = &machine.clock,
                  .memory = &machine.memory,
                  .events = &machine};
  for (const std::uint32_t irq : device.irqs) host.irqs.push_back(machine.irqs.line(irq));
  std::unique_ptr<Device> made =
      VMM_TRY(with_context(device.make(host), "Make a device of the program's own"));
  if (made == nullptr) {
    return fail(ErrorCode::kBadConfig,
                "The function that makes a device of the program's made none");
  }
  const DeviceRef ref(std::move(made));
  const std::string id(ref.id());
  VMM_TRY(check_new(id, machine));
  for (const Window& window : device.ports) {
    VMM_TRY(with_context(machine.pio.insert(window, ref),
                         fmt::format("Put the device '{}' at port {:#x}", id, window.base)));
  }
  for (const Window& window : device.mmio) {
    VMM_TRY(check_not_ram(window, id, machine.memory));
    VMM_TRY(with_context(machine.mmio.insert(window, ref),
                         fmt::format("Put the device '{}' at {:#x}", id, window.base)));
  }
  if (!device.savable) {
    machine.unsavable.push_back(fmt::format("The state of the device '{}' cannot be saved", id));
  }
  machine.add(ref);
  return {};
}

}  // namespace vmm

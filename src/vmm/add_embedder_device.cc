#include "vmm/add_embedder_device.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "devices/function_state.h"

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

bool is_savable(const EmbedderDevice& device, const Device& made) {
  const auto* const functions = dynamic_cast<const StateInFunctions*>(&made);
  return functions != nullptr ? functions->savable() : device.savable;
}

// Addresses on both buses.
Result<void> insert_windows(const EmbedderDevice& device, const DeviceRef& ref, Machine& machine) {
  const std::string_view id = ref.id();
  for (const Window& window : device.ports) {
    VMM_TRY(with_context(machine.pio.insert(window, ref),
                         fmt::format("Put the device '{}' at port {:#x}", id, window.base)));
  }
  for (const Window& window : device.mmio) {
    VMM_TRY(check_not_ram(window, id, machine.memory));
    VMM_TRY(with_context(machine.mmio.insert(window, ref),
                         fmt::format("Put the device '{}' at {:#x}", id, window.base)));
  }
  return {};
}

}  // namespace

Result<void> add_embedder_device(const EmbedderDevice& device, Machine& machine) {
  DeviceHost host{.irqs = {},
                  .messages = machine.messages,
                  .clock = &machine.clock,
                  .memory = &machine.memory,
                  .events = &machine};
  for (const std::uint32_t irq : device.irqs) host.irqs.push_back(machine.irqs.line(irq));
  std::optional<PciBus::Seat> seat;
  if (device.pci) {
    seat = VMM_TRY(machine.pci->next_seat());
    host.pci = seat->ports;
  }
  std::unique_ptr<Device> made =
      VMM_TRY(with_context(device.make(host), "Make a device of the program's own"));
  if (made == nullptr) {
    return fail(ErrorCode::kBadConfig,
                "The function that makes a device of the program's made none");
  }
  const bool savable = is_savable(device, *made);
  const DeviceRef ref(std::move(made));
  VMM_TRY(machine.check_new_id(ref.id()));
  VMM_TRY(insert_windows(device, ref, machine));
  if (seat) VMM_TRY(machine.pci->attach(*seat, ref));
  if (!savable) {
    machine.unsavable.push_back(
        fmt::format("The state of the device '{}' cannot be saved", ref.id()));
  }
  machine.add(ref);
  if (device.attached) device.attached(ref);
  return {};
}

}  // namespace vmm

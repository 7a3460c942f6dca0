#include "vmm/snapshot/machine_state.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "devices/state_io.h"
#include "vmm/x86/layout.h"

namespace vmm {

Result<void> SavedStop::validate() const {
  if (reason > StopReason::kCancelled) {
    return fail(ErrorCode::kBadState, "There is no reason {} to stop", static_cast<int>(reason));
  }
  return {};
}

Result<void> MachineState::validate() const {
  constexpr std::int64_t kMostTime = std::int64_t{1} << 60;  // 36 years
  if (cpus.size() != shape.cpus || cpus.empty()) {
    return fail(ErrorCode::kBadState, "There are states of {} CPUs, the machine has {}",
                cpus.size(), shape.cpus);
  }
  if (chips.has_value() != (shape.irqchip == IrqchipMode::kKernel) ||
      (held_interrupt && shape.irqchip != IrqchipMode::kSplit)) {
    return fail(ErrorCode::kBadState, "The interrupt controllers' state is of another irqchip");
  }
  if (guest_time < 0 || guest_time > kMostTime || utc < -kMostTime || utc > 4 * kMostTime) {
    return fail(ErrorCode::kBadState, "The guest's time is {} ns, of the day {} ns", guest_time,
                utc);
  }
  return {};
}

nlohmann::json to_document(const WholeState& state) {
  StateWriter writer;
  writer.put(state.machine);
  nlohmann::json devices = nlohmann::json::object();
  for (const auto& [id, device] : state.devices) devices[id] = device.json();
  return {{"machine", writer.document()}, {"devices", std::move(devices)}};
}

Result<WholeState> from_document(const StateDocument& document) {
  const StateView whole = document.view();
  const auto machine = document.member("machine");
  const auto devices = document.member("devices");
  if (!machine || !devices || !whole.no_more_than(2) || !devices->view().structure()) {
    return fail(ErrorCode::kBadState, "The state is not one of a machine and its devices");
  }
  WholeState state;
  state.machine = VMM_TRY(StateReader(*machine).get<MachineState>());
  for (const auto& [id, device] : devices->view().members()) {
    state.devices.emplace(id, document.part(device));
  }
  return state;
}

}  // namespace vmm

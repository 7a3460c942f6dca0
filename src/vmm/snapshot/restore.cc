#include "vmm/snapshot/restore.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string_view>
#include <utility>

#include "devices/state_io.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

using std::chrono::nanoseconds;

// Interrupt controllers, in the order in which interrupts pass through them. They come after all
// other devices, which drive their lines when they are restored: what that does to a controller is
// replaced by its own state.
constexpr std::array<std::string_view, 3> kControllers{"pic", "ioapic", "lapics"};

bool is_controller(std::string_view id) {
  return std::find(kControllers.begin(), kControllers.end(), id) != kControllers.end();
}

Result<void> restore_device(const DeviceRef& device, const WholeState& state) {
  const auto found = state.devices.find(std::string(device.id()));
  if (found == state.devices.end()) {
    return fail(ErrorCode::kBadState, "The snapshot has no state of device '{}'", device.id());
  }
  const StateReader reader(found->second);
  auto restored = device.with([&](Device& d) { return d.restore(reader); });
  if (!restored)
    return with_context(std::move(restored), fmt::format("Restore device '{}'", device.id()));
  return {};
}

Result<void> restore_devices(const Machine& machine, const WholeState& state) {
  // A copy: devices that are restored may ask for the roster's lock.
  const std::vector<DeviceRef> devices =
      machine.roster.with([](const Roster& roster) { return roster.devices; });
  if (state.devices.size() != devices.size()) {
    return fail(ErrorCode::kBadState, "The snapshot has {} devices, the machine {}",
                state.devices.size(), devices.size());
  }
  for (const DeviceRef& device : devices) {
    if (!is_controller(device.id())) VMM_TRY(restore_device(device, state));
  }
  for (const std::string_view id : kControllers) {
    for (const DeviceRef& device : devices) {
      if (device.id() == id) VMM_TRY(restore_device(device, state));
    }
  }
  return {};
}

// Somebody's wish to stop this machine is none of the snapshot's business.
std::optional<StopBoard::Stop> waiting_cancel(const StopBoard& stops) {
  auto stop = stops.untold();
  const StopInfo* const info = stop ? std::get_if<StopInfo>(&*stop) : nullptr;
  return info != nullptr && info->reason == StopReason::kCancelled ? stop : std::nullopt;
}

// How long ago the state was saved, by the time of day; a clock that was set back counts as none.
nanoseconds time_since(const MachineState& saved, const GuestClock& clock) {
  constexpr nanoseconds kMost = std::chrono::hours(24 * 365 * 20);
  return std::clamp<nanoseconds>(clock.utc() - nanoseconds(saved.utc), nanoseconds(0), kMost);
}

void advance_tsc(kvm::VcpuState& cpu, nanoseconds passed, std::uint32_t khz) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(passed);
  const auto rest = static_cast<std::uint64_t>((passed - seconds).count());
  const std::uint64_t ticks =
      static_cast<std::uint64_t>(seconds.count()) * khz * 1000 + rest * khz / 1'000'000;
  for (kvm::Msr& msr : cpu.msrs) {
    if (msr.index == x86::kMsrTsc) msr.value += ticks;
  }
}

// A guest has measured its TSC; one that counts at another rate would make its time wrong.
Result<void> check_tsc(std::uint32_t khz, std::uint32_t saved_khz) {
  constexpr std::uint32_t kTolerated = 4000;  // a part of: 250 ppm, what KVM takes as the same
  const std::uint32_t apart = khz > saved_khz ? khz - saved_khz : saved_khz - khz;
  if (apart <= khz / kTolerated) return {};
  return fail(ErrorCode::kUnsupported,
              "The guest knows a TSC of {} kHz, and this host's counts at {} kHz", saved_khz, khz);
}

Result<void> restore_cpu(kvm::VcpuFd& cpu, ExitDispatch& dispatch, const kvm::VcpuState& state,
                         kvm::VcpuStateFormat& format, bool fresh) {
  VMM_TRY(
      with_context(format.restore(cpu, state, fresh), fmt::format("Restore vCPU {}", cpu.id())));
  // Where KVM has no local APIC it takes CR8 from here on each entry.
  cpu.set_cr8(static_cast<std::uint8_t>(state.system.cr8 & 0xf));
  return dispatch.restored(cpu);
}

}  // namespace

Result<void> restore_state(Machine& machine, const WholeState& state, const CpuAccess& cpus,
                           kvm::VcpuStateFormat& format, RestoreOptions options) {
  const MachineState& saved = state.machine;
  machine.clock.set(nanoseconds(saved.guest_time), nanoseconds(saved.utc));  // devices look at it
  VMM_TRY(restore_devices(machine, state));
  machine.asleep =
      machine.acpi_pm->with([](const AcpiPm& pm) { return pm.sleep() != AcpiPm::Sleep::kAwake; });
  if (machine.split_irqchip != nullptr) machine.split_irqchip->set_held(saved.held_interrupt);
  if (saved.chips) {
    VMM_TRY(with_context(kvm::restore_chips(machine.vm, *saved.chips),
                         "Restore the interrupt controllers"));
  }
  const nanoseconds passed = options.catch_up ? time_since(saved, machine.clock) : nanoseconds(0);
  for (std::size_t i = 0; i < cpus.count(); ++i) {
    const auto restore = [&](kvm::VcpuFd& cpu, ExitDispatch& dispatch) -> Result<void> {
      const std::uint32_t khz = VMM_TRY(format.tsc_khz(cpu));
      VMM_TRY(check_tsc(khz, saved.tsc_khz));
      if (passed == nanoseconds(0)) {
        return restore_cpu(cpu, dispatch, saved.cpus[i], format, options.fresh);
      }
      kvm::VcpuState later = saved.cpus[i];
      advance_tsc(later, passed, saved.tsc_khz);
      return restore_cpu(cpu, dispatch, later, format, options.fresh);
    };
    VMM_TRY(cpus.with(i, restore));
  }
  // After the TSCs, by which KVM counts on.
  if (saved.kvm_clock && machine.system->capabilities().adjust_clock) {
    VMM_TRY(machine.vm.set_clock(*saved.kvm_clock + static_cast<std::uint64_t>(passed.count())));
  }
  machine.com1->with([&](Uart16550&) { machine.console.restore(saved.panicked); });
  std::optional<StopBoard::Stop> stop = waiting_cancel(machine.stops);
  if (saved.stop) {
    stop = StopInfo{.reason = saved.stop->reason,
                    .vcpu = static_cast<VcpuId>(saved.stop->vcpu),
                    .value = saved.stop->value,
                    .detail = saved.stop->detail,
                    .report = saved.stop->report};
  }
  machine.stops.reset(std::move(stop));
  return {};
}

Result<void> restore_first_cpu(const WholeState& state, const CpuAccess& cpus,
                               kvm::VcpuStateFormat& format) {
  return cpus.with(0, [&](kvm::VcpuFd& cpu, ExitDispatch& dispatch) {
    return restore_cpu(cpu, dispatch, state.machine.cpus.front(), format, false);
  });
}

}  // namespace vmm

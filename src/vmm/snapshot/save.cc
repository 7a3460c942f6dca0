#include "vmm/snapshot/save.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>
#include <variant>

#include "base/join.h"
#include "devices/state_io.h"
#include "devices/virtio/blk.h"
#include "vmm/hot_plug.h"

namespace vmm {
namespace {

// The loop's callbacks do not wait; only a host in deep trouble needs longer.
constexpr std::chrono::seconds kLoopTimeout{10};

void finish_disk_requests(const Machine& machine) {
  machine.roster.with([](const Roster& roster) {
    for (const VirtioHandle& handle : roster.virtio) {
      auto* const disk = dynamic_cast<virtio::Blk*>(handle.inside);
      if (disk != nullptr) handle.outside.with([&](Device&) { disk->finish_requests(); });
    }
  });
}

std::optional<SavedStop> saved_stop(const StopBoard& stops) {
  const auto stop = stops.untold();
  if (!stop || !std::holds_alternative<StopInfo>(*stop)) return std::nullopt;
  const StopInfo& info = std::get<StopInfo>(*stop);
  if (info.reason == StopReason::kCancelled)
    return std::nullopt;  // the host's wish, not the guest's
  return SavedStop{.reason = info.reason,
                   .vcpu = static_cast<std::uint32_t>(info.vcpu),
                   .value = info.value,
                   .detail = info.detail,
                   .report = info.report};
}

std::vector<SavedFile> saved_files(const Machine& machine) {
  std::vector<SavedFile> files;
  if (!machine.fw_cfg) return files;
  machine.fw_cfg->with([&](const FwCfg& fw_cfg) {
    for (const auto& [name, content] : fw_cfg.files()) files.push_back({name, Blob{content}});
  });
  return files;
}

}  // namespace

Result<kvm::VcpuStateFormat> vcpu_format(const Machine& machine, const HostPlan& plan) {
  const bool lapic = plan.irqchip == IrqchipMode::kKernel || plan.irqchip == IrqchipMode::kSplit;
  return kvm::VcpuStateFormat(VMM_TRY(machine.system->msr_indices()), lapic,
                              machine.system->capabilities().xcrs);
}

Result<void> bring_to_rest(Machine& machine, const CpuAccess& cpus) {
  for (EventLoop* const loop : machine.loops) VMM_TRY(loop->settle(kLoopTimeout));
  finish_disk_requests(machine);
  if (machine.user_irqchip == nullptr) return {};
  for (std::size_t i = 0; i < cpus.count(); ++i) {
    VMM_TRY(cpus.with(i, [&](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
      machine.user_irqchip->release_ticks(static_cast<VcpuId>(cpu.id()));
      return {};
    }));
  }
  return {};
}

Result<void> check_savable(const Machine& machine) {
  if (machine.unsavable.empty()) return {};
  return fail(ErrorCode::kUnsupported, "The machine cannot be saved: {}",
              join(machine.unsavable, "; "));
}

Result<WholeState> save_state(Machine& machine, const MachineShape& shape, const CpuAccess& cpus,
                              kvm::VcpuStateFormat& format) {
  VMM_TRY(check_savable(machine));
  WholeState state;
  MachineState& saved = state.machine;
  saved.shape = shape;
  if (machine.hot_plug != nullptr && machine.hot_plug->used()) {
    return fail(ErrorCode::kUnsupported,
                "The machine cannot be saved: devices were plugged in or out while it ran");
  }
  machine.roster.with([&](const Roster& roster) {
    for (const DeviceRef& device : roster.devices) {
      StateWriter writer;
      device.with([&](const Device& d) { d.save(writer); });
      state.devices.emplace(std::string(device.id()), writer.whole());
    }
  });
  if (machine.split_irqchip != nullptr) saved.held_interrupt = machine.split_irqchip->held();
  if (shape.irqchip == IrqchipMode::kKernel) saved.chips = VMM_TRY(kvm::save_chips(machine.vm));
  for (std::size_t i = 0; i < cpus.count(); ++i) {
    const auto save = [&](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
      saved.cpus.push_back(VMM_TRY(format.save(cpu)));
      if (i == 0) saved.tsc_khz = VMM_TRY(format.tsc_khz(cpu));
      return {};
    };
    VMM_TRY(cpus.with(i, save));
  }
  if (machine.system->capabilities().adjust_clock) {
    saved.kvm_clock = VMM_TRY(machine.vm.clock());
  }
  saved.guest_time = machine.clock.now().count();
  saved.utc = machine.clock.utc().count();
  saved.panicked = machine.console.panicked();
  saved.stop = saved_stop(machine.stops);
  saved.files = saved_files(machine);
  return state;
}

}  // namespace vmm

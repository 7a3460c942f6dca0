#include "vmm/kvm/vm_fd.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "base/size.h"
#include "vmm/kvm/flexible.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {

Result<void> VmFd::set_slot(const Slot& slot) const {
  kvm_userspace_memory_region region{};
  region.slot = slot.number;
  region.guest_phys_addr = slot.range.base().value;
  region.memory_size = slot.range.size();
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(slot.hva);
  region.flags =
      (slot.read_only ? KVM_MEM_READONLY : 0U) | (slot.log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0U);
  if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    return fail_errno(errno, "KVM_SET_USER_MEMORY_REGION: slot {} at GPA {}, {}", slot.number,
                      slot.range, format_size(slot.range.size()));
  }
  return {};
}

Result<void> VmFd::set_tss_address(Gpa address) const {
  VMM_TRY(ioctl_value(fd_.get(), KVM_SET_TSS_ADDR, address.value, "KVM_SET_TSS_ADDR", "the VM"));
  return {};
}

Result<void> VmFd::set_identity_map_address(Gpa address) const {
  return ioctl_pointer(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &address.value,
                       "KVM_SET_IDENTITY_MAP_ADDR", "the VM");
}

Result<void> VmFd::create_irqchip() const {
  VMM_TRY(ioctl_value(fd_.get(), KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP", "the VM"));
  return {};
}

Result<void> VmFd::create_pit() const {
  kvm_pit_config config{};
  config.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 is answered in the kernel, too
  return ioctl_pointer(fd_.get(), KVM_CREATE_PIT2, &config, "KVM_CREATE_PIT2", "the VM");
}

Result<void> VmFd::enable(std::uint32_t capability, std::span<const std::uint64_t> args,
                          const char* name) const {
  kvm_enable_cap cap{};
  cap.cap = capability;
  std::copy(args.begin(), args.end(), cap.args);
  return ioctl_pointer(fd_.get(), KVM_ENABLE_CAP, &cap, name, "the VM");
}

Result<void> VmFd::enable_split_irqchip(std::uint32_t ioapic_pins) const {
  const std::array<std::uint64_t, 1> args{ioapic_pins};
  return enable(KVM_CAP_SPLIT_IRQCHIP, args, "KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)");
}

Result<void> VmFd::enable_exit_on_emulation_failure() const {
  const std::array<std::uint64_t, 1> args{1};
  return enable(KVM_CAP_EXIT_ON_EMULATION_FAILURE, args,
                "KVM_ENABLE_CAP(KVM_CAP_EXIT_ON_EMULATION_FAILURE)");
}

Result<void> VmFd::trap_msrs(std::span<const MsrTrap> traps, bool refused) const {
  const std::array<std::uint64_t, 1> args{
      refused ? std::uint64_t{KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_INVAL}
              : std::uint64_t{KVM_MSR_EXIT_REASON_FILTER}};
  VMM_TRY(enable(KVM_CAP_X86_USER_SPACE_MSR, args, "KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)"));
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  // A range with a clear bit denies, which sends the access here.
  std::array<std::uint8_t, 1> deny{0};
  if (traps.size() > std::size(filter.ranges)) {
    return fail(ErrorCode::kUnsupported, "KVM filters at most {} MSR ranges, {} were asked for",
                std::size(filter.ranges), traps.size());
  }
  for (std::size_t i = 0; i < traps.size(); ++i) {
    filter.ranges[i].flags =
        (traps[i].reads ? KVM_MSR_FILTER_READ : 0U) | (traps[i].writes ? KVM_MSR_FILTER_WRITE : 0U);
    filter.ranges[i].base = traps[i].index;
    filter.ranges[i].nmsrs = 1;
    filter.ranges[i].bitmap = deny.data();
  }
  return ioctl_pointer(fd_.get(), KVM_X86_SET_MSR_FILTER, &filter, "KVM_X86_SET_MSR_FILTER",
                       "the VM");
}

Result<void> VmFd::set_irq_line(std::uint32_t gsi, bool asserted) const {
  kvm_irq_level level{};
  level.irq = gsi;
  level.level = asserted ? 1U : 0U;
  return ioctl_pointer(fd_.get(), KVM_IRQ_LINE, &level, "KVM_IRQ_LINE", "the VM");
}

Result<bool> VmFd::signal_msi(std::uint64_t address, std::uint32_t data) const {
  kvm_msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(address);
  msi.address_hi = static_cast<std::uint32_t>(address >> 32);
  msi.data = data;
  const int delivered = ::ioctl(fd_.get(), KVM_SIGNAL_MSI, &msi);
  if (delivered < 0) return fail_errno(errno, "KVM_SIGNAL_MSI on the VM");
  return delivered > 0;
}

Result<void> VmFd::set_gsi_routing(std::span<const GsiRoute> routes) const {
  RoutingTable table(routes.size());
  table.head().nr = static_cast<std::uint32_t>(routes.size());
  const auto entries = table.entries(routes.size());
  for (std::size_t i = 0; i < routes.size(); ++i) {
    const GsiRoute& route = routes[i];
    entries[i].gsi = route.gsi;
    if (route.is_msi) {
      entries[i].type = KVM_IRQ_ROUTING_MSI;
      entries[i].u.msi.address_lo = static_cast<std::uint32_t>(route.msi_address);
      entries[i].u.msi.address_hi = static_cast<std::uint32_t>(route.msi_address >> 32);
      entries[i].u.msi.data = route.msi_data;
    } else {
      entries[i].type = KVM_IRQ_ROUTING_IRQCHIP;
      entries[i].u.irqchip.irqchip = route.chip;
      entries[i].u.irqchip.pin = route.pin;
    }
  }
  return ioctl_pointer(fd_.get(), kSetGsiRouting, table.get(), "KVM_SET_GSI_ROUTING", "the VM");
}

Result<std::uint64_t> VmFd::clock() const {
  kvm_clock_data data{};
  VMM_TRY(ioctl_pointer(fd_.get(), KVM_GET_CLOCK, &data, "KVM_GET_CLOCK", "the VM"));
  return data.clock;
}

Result<void> VmFd::set_clock(std::uint64_t nanoseconds) const {
  kvm_clock_data data{};
  data.clock = nanoseconds;
  return ioctl_pointer(fd_.get(), KVM_SET_CLOCK, &data, "KVM_SET_CLOCK", "the VM");
}

Result<VcpuFd> VmFd::create_vcpu(std::uint32_t id) const {
  const int fd = ::ioctl(fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id));
  if (fd < 0) return fail_errno(errno, "KVM_CREATE_VCPU: vCPU {}", id);
  return VcpuFd::create(UniqueFd(fd), id, run_size_, xsave_size_);
}

}  // namespace vmm::kvm

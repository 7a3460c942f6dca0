#include "vmm/completion/kvm_cpu.h"

#include <array>

namespace vmm::completion {

Result<bool> KvmCpu::set_xcr0(std::uint64_t value) {
  // KVM answers EINVAL to features that the guest's CPUID does not have.
  return fd_.set_xcr0(value).has_value();
}

Result<bool> KvmCpu::breakpoints_armed() {
  if (watched_) return true;
  constexpr std::uint64_t kEnabled = 0xff;  // L0 to G3
  return (VMM_TRY(fd_.dr7()) & kEnabled) != 0;
}

Result<std::optional<std::uint64_t>> KvmCpu::msr(std::uint32_t index) {
  auto value = fd_.msr(index);
  if (value) return std::optional<std::uint64_t>(*value);
  if (value.error().code() == ErrorCode::kUnsupported) return std::optional<std::uint64_t>();
  return tl::unexpected<Error>(std::move(value).error());
}

Result<bool> KvmCpu::set_msr(std::uint32_t index, std::uint64_t value) {
  const std::array<kvm::Msr, 1> msrs{{{index, value}}};
  auto set = fd_.set_msrs(msrs);
  if (set) return true;
  if (set.error().code() == ErrorCode::kUnsupported) return false;
  return tl::unexpected<Error>(std::move(set).error());
}

Result<void> KvmCpu::inject(const Event& event) {
  if (event.cr2) {
    x86::SystemRegisters system = VMM_TRY(fd_.system_registers());
    system.cr2 = *event.cr2;
    VMM_TRY(fd_.set_system_registers(system));
  }
  if (event.dr6 != 0) VMM_TRY(fd_.raise_dr6(event.dr6));
  if (event.software_interrupt) return fd_.inject_software_interrupt(event.vector);
  return fd_.inject({static_cast<x86::Vector>(event.vector), event.error_code});
}

}  // namespace vmm::completion

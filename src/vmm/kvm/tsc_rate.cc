#include "vmm/kvm/tsc_rate.h"

#include <linux/kvm.h>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {

Result<void> set_tsc_khz(const VcpuFd& cpu, std::uint32_t khz) {
  VMM_TRY(ioctl_value(cpu.fd(), KVM_SET_TSC_KHZ, khz, "KVM_SET_TSC_KHZ", "a vCPU"));
  return {};
}

}  // namespace vmm::kvm

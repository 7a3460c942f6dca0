// How fast a guest's TSC counts.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::kvm {

// KVM_SET_TSC_KHZ, before the guest runs. Errors: what KVM refuses; without
// Capabilities::tsc_control all but the host's own rate.
Result<void> set_tsc_khz(const VcpuFd& cpu, std::uint32_t khz);

}  // namespace vmm::kvm

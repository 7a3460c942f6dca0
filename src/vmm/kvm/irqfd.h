// Interrupts that KVM raises itself: who signals an eventfd, another process included, sends what
// the GSI's route leads to.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

// How many entries the GSI table has for those; 0 where KVM has no irqfds.
std::uint32_t irqfd_routes(const System& system);

// KVM_IRQFD, edge-triggered. KVM lets go of the eventfd when its last descriptor is closed. Errors:
// what KVM refuses.
Result<void> attach_irqfd(const VmFd& vm, int eventfd, std::uint32_t gsi);

}  // namespace vmm::kvm

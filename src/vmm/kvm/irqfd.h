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

// Level-triggered, for a pin of KVM's own chips: up from a signal of `eventfd` until the guest has
// ended the interrupt, when KVM lets go of the pin and signals `resample`. Errors: what KVM
// refuses; kUnsupported where it has no such irqfds.
Result<void> attach_level_irqfd(const System& system, const VmFd& vm, int eventfd, int resample,
                                std::uint32_t gsi);

// Takes back either kind.
void detach_irqfd(const VmFd& vm, int eventfd, std::uint32_t gsi);

}  // namespace vmm::kvm

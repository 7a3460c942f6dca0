// Doorbells that KVM answers itself: a guest's write signals an eventfd and does not exit.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

// A write of exactly this width to this address, and of this value if one is given.
struct IoEvent {
  bool pio = false;  // a port, else a GPA
  std::uint64_t address = 0;
  std::uint32_t width = 4;  // 1, 2, 4 or 8
  std::optional<std::uint64_t> match = {};
  bool operator==(const IoEvent&) const = default;
};

// KVM_IOEVENTFD. On a VM with in-kernel chips each call waits for a grace period of the kernel:
// not from an exit. Errors: what KVM refuses (kResource when it has too many).
Result<void> attach_ioeventfd(const VmFd& vm, const IoEvent& event, int eventfd);
Result<void> detach_ioeventfd(const VmFd& vm, const IoEvent& event, int eventfd);

}  // namespace vmm::kvm

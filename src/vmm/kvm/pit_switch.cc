#include "vmm/kvm/pit_switch.h"

#include <linux/kvm.h>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {

// KVM starts the counter anew when it is set; whoever gives the timer back sets it up again.
// Both ioctls fail only when the VM itself is gone.
void PitSwitch::set_open(bool open) {
  const std::lock_guard guard(mutex_);
  if (open == open_) return;
  open_ = open;
  kvm_pit_state2 pit{};
  if (!ioctl_pointer(vm_.fd(), KVM_GET_PIT2, &pit, "KVM_GET_PIT2", "the VM")) return;
  constexpr std::uint32_t kReplaced = KVM_PIT_FLAGS_HPET_LEGACY;
  pit.flags = open ? pit.flags & ~kReplaced : pit.flags | kReplaced;
  (void)ioctl_pointer(vm_.fd(), KVM_SET_PIT2, &pit, "KVM_SET_PIT2", "the VM");
}

}  // namespace vmm::kvm

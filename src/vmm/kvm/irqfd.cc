#include "vmm/kvm/irqfd.h"

#include <linux/kvm.h>

#include <algorithm>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {

std::uint32_t irqfd_routes(const System& system) {
  if (!system.capabilities().irqfd) return 0;
  return static_cast<std::uint32_t>(std::max(system.extension(KVM_CAP_IRQ_ROUTING), 0));
}

Result<void> attach_irqfd(const VmFd& vm, int eventfd, std::uint32_t gsi) {
  kvm_irqfd argument{};
  argument.fd = static_cast<std::uint32_t>(eventfd);
  argument.gsi = gsi;
  return ioctl_pointer(vm.fd(), KVM_IRQFD, &argument, "KVM_IRQFD", "the VM");
}

Result<void> attach_level_irqfd(const System& system, const VmFd& vm, int eventfd, int resample,
                                std::uint32_t gsi) {
  if (system.extension(KVM_CAP_IRQFD_RESAMPLE) <= 0) {
    return fail(ErrorCode::kUnsupported,
                "KVM lacks KVM_CAP_IRQFD_RESAMPLE: use the split or the user irqchip");
  }
  kvm_irqfd argument{};
  argument.fd = static_cast<std::uint32_t>(eventfd);
  argument.gsi = gsi;
  argument.flags = KVM_IRQFD_FLAG_RESAMPLE;
  argument.resamplefd = static_cast<std::uint32_t>(resample);
  return ioctl_pointer(vm.fd(), KVM_IRQFD, &argument, "KVM_IRQFD", "the VM");
}

void detach_irqfd(const VmFd& vm, int eventfd, std::uint32_t gsi) {
  kvm_irqfd argument{};
  argument.fd = static_cast<std::uint32_t>(eventfd);
  argument.gsi = gsi;
  argument.flags = KVM_IRQFD_FLAG_DEASSIGN;
  (void)ioctl_pointer(vm.fd(), KVM_IRQFD, &argument, "KVM_IRQFD", "the VM");
}

}  // namespace vmm::kvm

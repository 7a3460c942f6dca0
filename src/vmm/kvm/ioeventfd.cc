#include "vmm/kvm/ioeventfd.h"

#include <linux/kvm.h>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {
namespace {

Result<void> request(const VmFd& vm, const IoEvent& event, int eventfd, std::uint32_t flags) {
  kvm_ioeventfd argument{};
  argument.addr = event.address;
  argument.len = event.width;
  argument.fd = eventfd;
  argument.flags = flags | (event.pio ? std::uint32_t{KVM_IOEVENTFD_FLAG_PIO} : 0U);
  if (event.match) {
    argument.datamatch = *event.match;
    argument.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
  }
  return ioctl_pointer(vm.fd(), KVM_IOEVENTFD, &argument, "KVM_IOEVENTFD", "the VM");
}

}  // namespace

Result<void> attach_ioeventfd(const VmFd& vm, const IoEvent& event, int eventfd) {
  return request(vm, event, eventfd, 0);
}

Result<void> detach_ioeventfd(const VmFd& vm, const IoEvent& event, int eventfd) {
  return request(vm, event, eventfd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

}  // namespace vmm::kvm

// A number that KVM counts for a vCPU (KVM_GET_STATS_FD).
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::kvm {

// Keeps a descriptor of KVM's, and with it the VM. Any thread.
class VcpuStat {
 public:
  // By its name in Documentation/virt/kvm/api.rst and the kernel's kvm_vcpu_stats_desc ("pf_taken",
  // "exits"). Errors: kUnsupported when this KVM does not count it, or tells nobody.
  static Result<VcpuStat> open(const VcpuFd& cpu, std::string_view name);

  // How often since the vCPU was made. Errors: the kernel's.
  Result<std::uint64_t> value() const;

 private:
  VcpuStat(UniqueFd fd, std::uint64_t at) : fd_(std::move(fd)), at_(at) {}

  UniqueFd fd_;
  std::uint64_t at_;  // where its value is
};

}  // namespace vmm::kvm

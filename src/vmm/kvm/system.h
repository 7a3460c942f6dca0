// /dev/kvm: what this host's KVM is and can do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/x86/cpu_features.h"

namespace vmm::kvm {

using x86::CpuidEntry;

// Asked for once by each process. Numbers are what KVM_CHECK_EXTENSION answered.
struct Capabilities {
  bool immediate_exit = false;
  bool irqchip = false;
  bool split_irqchip = false;
  bool pit2 = false;
  bool irqfd = false;
  bool ioeventfd = false;
  bool signal_msi = false;
  bool tsc_deadline_timer = false;
  bool tsc_control = false;
  bool adjust_clock = false;
  bool exit_on_emulation_failure = false;
  bool user_space_msr = false;
  bool msr_filter = false;
  bool guest_debug = false;
  std::uint32_t guest_debug2 = 0;  // mask of KVM_GUESTDBG_* flags, 0 when the host does not say
  bool sync_registers = false;
  bool xcrs = false;
  bool set_tss_address = false;
  bool set_identity_map_address = false;
  bool x2apic_api = false;
  bool smm = false;
  bool nested = false;
  bool pmu = false;
  bool read_only_memory = false;
  bool dirty_log_ring = false;
  std::size_t xsave_size = 4096;  // bytes of KVM_GET_XSAVE2 on a VM, at least 4096
  std::uint32_t memory_slots = 32;
  std::uint32_t max_vcpus = 4;
  std::uint32_t max_vcpu_id = 4;
};

// Owner of the /dev/kvm descriptor. Thread-safe after open().
class System {
 public:
  // Errors: kNoKvm with what to do about it (missing device, no permission, wrong API version, no
  // memory slots).
  static Result<System> open(const std::string& path = "/dev/kvm");

  const Capabilities& capabilities() const noexcept { return capabilities_; }
  // KVM_CHECK_EXTENSION for a capability that Capabilities does not name.
  int extension(int capability) const noexcept;

  // KVM_GET_SUPPORTED_CPUID: what KVM offers to a guest on this host.
  Result<std::vector<CpuidEntry>> supported_cpuid() const;
  // KVM_GET_MSR_INDEX_LIST: MSRs that are part of a guest's state.
  Result<std::vector<std::uint32_t>> msr_indices() const;

  Result<VmFd> create_vm() const;

 private:
  explicit System(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<void> check();
  UniqueFd fd_;
  Capabilities capabilities_;
  std::size_t run_size_ = 0;  // bytes of a vCPU's shared mapping
};

}  // namespace vmm::kvm

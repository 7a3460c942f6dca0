// All state that KVM keeps of a vCPU at rest, and the order in which it is read and written.
//
// Reading (each before the next, where it matters):
//   1 MP state        KVM handles what INIT and SIPI have left pending when it is asked, which
//                     changes registers and local APIC: so before all of them
//   2 registers, system registers, FPU, XCRs, debug registers
//   3 local APIC      before the MSRs: its timer is not touched by reading
//   4 MSRs
//   5 events          last: the requests before may make an exception out of what is pending
// Writing:
//   1 CPUID           KVM judges control registers, XCRs and MSRs by the features that it shows
//   2 system registers  they have the APIC base, without which a local APIC takes no state
//   3 registers, XCRs, FPU  XCR0 before the area whose parts it allows
//   4 MP state        after the APIC base, before the local APIC
//   5 local APIC      before the MSRs: TSC_DEADLINE is refused unless its timer is in that mode
//   6 MSRs            the TSC first, TSC_DEADLINE last, which counts by it
//   7 debug registers
//   8 events          last: setting registers takes pending exceptions away
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "devices/blob.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/x86/cpu_events.h"
#include "vmm/x86/cpu_features.h"
#include "vmm/x86/registers.h"

namespace vmm::kvm {

struct VcpuState {
  std::vector<x86::CpuidEntry> cpuid;
  std::uint8_t mp_state = 0;  // MpState
  x86::Registers registers;
  x86::SystemRegisters system;
  Blob xsave;
  std::uint64_t xcr0 = 1;
  bool has_xcrs = false;
  std::array<std::uint64_t, 4> dr{};
  std::uint64_t dr6 = 0, dr7 = 0;
  std::optional<Blob> lapic;  // where KVM has the local APICs
  std::vector<Msr> msrs;
  x86::CpuEvents events;

  bool operator==(const VcpuState&) const = default;
  // Bounds only: what KVM refuses is its to say.
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("cpuid", &VcpuState::cpuid);
    f("mp_state", &VcpuState::mp_state);
    f("registers", &VcpuState::registers);
    f("system", &VcpuState::system);
    f("xsave", &VcpuState::xsave);
    f("xcr0", &VcpuState::xcr0);
    f("has_xcrs", &VcpuState::has_xcrs);
    f("dr", &VcpuState::dr);
    f("dr6", &VcpuState::dr6);
    f("dr7", &VcpuState::dr7);
    f("lapic", &VcpuState::lapic);
    f("msrs", &VcpuState::msrs);
    f("events", &VcpuState::events);
  }
};

// On the vCPU's thread, at rest. Errors: kIo, what KVM refuses.
Result<x86::CpuEvents> cpu_events(const VcpuFd& cpu);
Result<void> set_cpu_events(const VcpuFd& cpu, const x86::CpuEvents& events);

// What a machine's CPUs have in common about their state. The MSRs are found out once: those of the
// host's list that this guest has.
class VcpuStateFormat {
 public:
  // `listed` is KVM_GET_MSR_INDEX_LIST.
  VcpuStateFormat(std::vector<std::uint32_t> listed, bool lapic, bool xcrs);

  // On the vCPU's thread, at rest and with nothing pending.
  Result<VcpuState> save(const VcpuFd& cpu);
  // `fresh`: the CPU was just made, so that it has no CPUID table yet, which KVM takes only before
  // a vCPU has run, and is else as after power-on: what the state has of that is not set again.
  // Errors: kBadState when the state has what this host's does not; what KVM refuses.
  Result<void> restore(const VcpuFd& cpu, const VcpuState& state, bool fresh);
  // How fast the guest's TSC counts, which stays as it is: KVM is asked once. As save().
  Result<std::uint32_t> tsc_khz(const VcpuFd& cpu);

 private:
  Result<std::vector<Msr>> msrs(const VcpuFd& cpu);
  Result<void> check_listed(std::span<const Msr> msrs) const;
  Result<void> set_msrs(const VcpuFd& cpu, std::span<const Msr> msrs);

  std::vector<std::uint32_t> listed_;      // in the order of setting
  std::vector<std::uint32_t> sorted_;      // the same by their numbers
  std::vector<std::uint32_t> known_ = {};  // of these, what the guest has; empty: not yet asked
  std::vector<Msr> fixed_ = {};            // have one value, this, that KVM lets nobody write
  std::optional<std::uint32_t> tsc_khz_ = {};
  bool lapic_;
  bool xcrs_;
};

}  // namespace vmm::kvm

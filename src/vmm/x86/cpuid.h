// What a guest's CPUs say of themselves: the host's supported set, made the guest's own.
//
// Sources: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; the kernel's
// Documentation/virt/kvm/x86/cpuid.rst. Topology: one package, a core for each CPU, one thread a
// core; the x2APIC ID of a CPU is its number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/x86/cpu_features.h"

namespace vmm::x86 {

// Who plays the local APICs.
enum class LocalApic : std::uint8_t {
  kNone,       // nobody: the guest has none
  kUserSpace,  // this process
  kKernel,     // KVM
};

// Bits of KVM's feature leaf, 0x40000001 EAX (KVM_FEATURE_*).
namespace kvm_feature {
inline constexpr std::uint32_t kClocksource = 1U << 0;
inline constexpr std::uint32_t kNopIoDelay = 1U << 1;
inline constexpr std::uint32_t kClocksource2 = 1U << 3;
inline constexpr std::uint32_t kAsyncPf = 1U << 4;
inline constexpr std::uint32_t kStealTime = 1U << 5;
inline constexpr std::uint32_t kPvEoi = 1U << 6;
inline constexpr std::uint32_t kPvUnhalt = 1U << 7;
inline constexpr std::uint32_t kPvTlbFlush = 1U << 9;
inline constexpr std::uint32_t kAsyncPfVmexit = 1U << 10;
inline constexpr std::uint32_t kPvSendIpi = 1U << 11;
inline constexpr std::uint32_t kPollControl = 1U << 12;
inline constexpr std::uint32_t kPvSchedYield = 1U << 13;
inline constexpr std::uint32_t kAsyncPfInt = 1U << 14;
inline constexpr std::uint32_t kClocksourceStable = 1U << 24;

// What has KVM write times to the guest's memory.
inline constexpr std::uint32_t kClocks =
    kClocksource | kClocksource2 | kStealTime | kClocksourceStable;
// What makes a guest issue hypercalls, which some hosts cannot complete.
inline constexpr std::uint32_t kHypercalls = kPvUnhalt | kPvTlbFlush | kPvSendIpi | kPvSchedYield;
}  // namespace kvm_feature

struct CpuidPolicy {
  std::uint32_t vcpus = 1;  // 1 to 255
  LocalApic local_apic = LocalApic::kKernel;
  bool x2apic = true;                             // whoever plays them answers the x2APIC's MSRs
  bool tsc_deadline = false;                      // and has the TSC-deadline timer
  bool tsc_rate = true;                           // the guest may know how fast its TSC counts
  std::uint32_t hidden_kvm_features = 0;          // kvm_feature bits not to tell the guest of
  std::vector<std::string> add_features = {};     // refused when the guest would not have them
  std::vector<std::string> remove_features = {};  // with all that depend on them
  // For leaves 0x80000002 to 0x80000004 when the host's list leaves them empty; up to 47 bytes.
  std::string brand = {};
};

// The table for all CPUs of the guest but for their identity, from the host's supported set.
// Errors: kBadConfig for unknown feature names (all of them) or no CPUs; kUnsupported for features
// to add that this host, or this guest's APIC, does not have (all of them).
Result<std::vector<CpuidEntry>> guest_cpuid(std::span<const CpuidEntry> host,
                                            const CpuidPolicy& policy);

// Makes the table that of CPU number `vcpu`: its APIC IDs.
void set_cpu_identity(std::span<CpuidEntry> table, std::uint32_t vcpu) noexcept;

// The brand string of the CPU that this program runs on, without surrounding blanks; empty when it
// has none.
std::string host_cpu_brand();

}  // namespace vmm::x86

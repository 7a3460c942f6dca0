#include "vmm/x86/cpuid.h"

#include <cpuid.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/join.h"
#include "vmm/x86/cpuid_topology.h"

namespace vmm::x86 {
namespace {

constexpr std::uint32_t kKvmSignatureLeaf = 0x4000'0000;
constexpr std::uint32_t kKvmFeatureLeaf = 0x4000'0001;
constexpr std::uint32_t kBrandLeaf = 0x8000'0002;  // and the two after it
constexpr std::uint32_t kXsaveLeaf = 0xd;
constexpr std::uint32_t kTscLeaf = 0x15, kFrequencyLeaf = 0x16;

// What a guest may know of; others are for hypervisors that answer the hypercalls behind them.
constexpr std::uint32_t kKnownKvmFeatures =
    kvm_feature::kClocksource | kvm_feature::kNopIoDelay | kvm_feature::kClocksource2 |
    kvm_feature::kAsyncPf | kvm_feature::kStealTime | kvm_feature::kPvEoi | kvm_feature::kPvUnhalt |
    kvm_feature::kPvTlbFlush | kvm_feature::kAsyncPfVmexit | kvm_feature::kPvSendIpi |
    kvm_feature::kPollControl | kvm_feature::kPvSchedYield | kvm_feature::kAsyncPfInt |
    kvm_feature::kClocksourceStable;

// What KVM does by way of its own local APIC.
constexpr std::uint32_t kKernelApicFeatures = kvm_feature::kAsyncPf | kvm_feature::kPvEoi |
                                              kvm_feature::kPvUnhalt | kvm_feature::kAsyncPfVmexit |
                                              kvm_feature::kPvSendIpi | kvm_feature::kPvSchedYield |
                                              kvm_feature::kAsyncPfInt;

CpuidEntry* find(std::vector<CpuidEntry>& table, std::uint32_t function, std::uint32_t index = 0) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const CpuidEntry& entry) {
    return entry.function == function && (!entry.index_matters || entry.index == index);
  });
  return found == table.end() ? nullptr : &*found;
}

CpuidEntry& find_or_add(std::vector<CpuidEntry>& table, std::uint32_t function) {
  if (CpuidEntry* const entry = find(table, function)) return *entry;
  return table.emplace_back(CpuidEntry{.function = function});
}

// Names that are constants of this file.
void set(std::vector<CpuidEntry>& table, std::string_view name, bool value) {
  if (const CpuFeature* const feature = find_cpu_feature(name)) feature->set(table, value);
}

void apply_local_apic(std::vector<CpuidEntry>& table, const CpuidPolicy& policy) {
  const bool any = policy.local_apic != LocalApic::kNone;
  if (!any) set(table, "apic", false);
  if (!any || !policy.x2apic) {
    set(table, "x2apic", false);
  } else if (policy.local_apic == LocalApic::kUserSpace) {
    set(table, "x2apic", true);
  }
  // KVM's list never holds this one: it depends on the APIC.
  set(table, "tsc_deadline_timer", any && policy.tsc_deadline);
}

void apply_kvm_leaves(std::vector<CpuidEntry>& table, const CpuidPolicy& policy) {
  static constexpr std::array<char, 12> kSignature = {'K', 'V', 'M', 'K', 'V', 'M',
                                                      'K', 'V', 'M', 0,   0,   0};
  std::uint32_t offered = find_or_add(table, kKvmFeatureLeaf).eax & kKnownKvmFeatures;
  offered &= ~policy.hidden_kvm_features;
  if (policy.local_apic != LocalApic::kKernel) offered &= ~kKernelApicFeatures;
  find_or_add(table, kKvmFeatureLeaf).eax = offered;

  CpuidEntry& signature = find_or_add(table, kKvmSignatureLeaf);
  signature.eax = kKvmFeatureLeaf;  // the last leaf of the range
  std::memcpy(&signature.ebx, &kSignature[0], 4);
  std::memcpy(&signature.ecx, &kSignature[4], 4);
  std::memcpy(&signature.edx, &kSignature[8], 4);
}

// Leaves of the brand string say nothing in the lists of some hosts; a guest wants a name to print.
void apply_brand(std::vector<CpuidEntry>& table, const std::string& brand) {
  std::array<char, 48> text{};  // the last byte stays zero
  std::copy_n(brand.begin(), std::min(brand.size(), text.size() - 1), text.begin());
  std::array<CpuidEntry*, 3> leaves{};
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    leaves[i] = find(table, kBrandLeaf + static_cast<std::uint32_t>(i));
    if (leaves[i] == nullptr) return;
  }
  for (const CpuidEntry* const leaf : leaves) {
    if ((leaf->eax | leaf->ebx | leaf->ecx | leaf->edx) != 0) return;
  }
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    std::memcpy(&leaves[i]->eax, &text[i * 16], 4);
    std::memcpy(&leaves[i]->ebx, &text[i * 16 + 4], 4);
    std::memcpy(&leaves[i]->ecx, &text[i * 16 + 8], 4);
    std::memcpy(&leaves[i]->edx, &text[i * 16 + 12], 4);
  }
}

// A state component of XSAVE and the feature that it belongs to (SDM volume 1, 13.1).
struct StateComponent {
  std::string_view feature;
  std::uint32_t mask;  // of XCR0
};
constexpr auto kStateComponents = std::to_array<StateComponent>({
    {"avx", 1U << 2},
    {"mpx", 3U << 3},
    {"avx512f", 7U << 5},
    {"pku", 1U << 9},
    {"amx_tile", 3U << 17},
});

// Takes components out of leaf 0xd: XCR0's bits, their subleaves, and the size of what is left.
void drop_state(std::vector<CpuidEntry>& table, std::uint32_t mask) {
  constexpr std::uint32_t kLegacyAndHeader = 576;
  std::uint32_t size = kLegacyAndHeader;
  for (CpuidEntry& entry : table) {
    if (entry.function != kXsaveLeaf || entry.index < 2 || entry.index > 31) continue;
    if ((mask >> entry.index & 1) != 0) {
      entry.eax = entry.ebx = entry.ecx = entry.edx = 0;
    } else if ((entry.ecx & 1) == 0) {  // a user component, with a place in the standard format
      size = std::max(size, entry.ebx + entry.eax);
    }
  }
  if (CpuidEntry* const leaf = find(table, kXsaveLeaf)) {
    leaf->eax &= ~mask;
    leaf->ebx = leaf->ecx = size;
  }
}

void drop_all_state(std::vector<CpuidEntry>& table) {
  for (CpuidEntry& entry : table) {
    if (entry.function == kXsaveLeaf) entry.eax = entry.ebx = entry.ecx = entry.edx = 0;
  }
}

// AMD repeats some of leaf 1's EDX in leaf 0x80000001 (APM volume 3, E.4.2).
void remove_amd_alias(std::vector<CpuidEntry>& table, const CpuFeature& feature) {
  constexpr std::uint32_t kRepeated = 0x0183'f3ff;
  if (feature.function != 1 || feature.reg != CpuidRegister::kEdx || !is_amd(table)) return;
  if ((kRepeated >> feature.bit & 1) == 0) return;
  CpuFeature alias = feature;
  alias.function = 0x8000'0001;
  alias.set(table, false);
}

void remove_one(std::vector<CpuidEntry>& table, std::string_view name) {
  const CpuFeature* const feature = find_cpu_feature(name);
  if (feature == nullptr || !feature->is_set(table)) return;
  feature->set(table, false);
  remove_amd_alias(table, *feature);
  if (name == "xsave") drop_all_state(table);
  for (const StateComponent& component : kStateComponents) {
    if (component.feature == name) drop_state(table, component.mask);
  }
}

Result<void> check_names(const CpuidPolicy& policy) {
  std::vector<std::string> unknown;
  for (const auto* const list : {&policy.add_features, &policy.remove_features}) {
    std::copy_if(list->begin(), list->end(), std::back_inserter(unknown),
                 [](const std::string& name) { return find_cpu_feature(name) == nullptr; });
  }
  if (unknown.empty()) return {};
  return fail(ErrorCode::kBadConfig, "Unknown CPU features: {} (names are those of /proc/cpuinfo)",
              join(unknown, ", "));
}

}  // namespace

Result<std::vector<CpuidEntry>> guest_cpuid(std::span<const CpuidEntry> host,
                                            const CpuidPolicy& policy) {
  if (policy.vcpus == 0 || policy.vcpus > kMaxTopologyCpus) {
    return fail(ErrorCode::kBadConfig, "A guest with {} CPUs: 1 to {} are possible", policy.vcpus,
                kMaxTopologyCpus);
  }
  VMM_TRY(check_names(policy));

  std::vector<CpuidEntry> table(host.begin(), host.end());
  set(table, "hypervisor", true);
  apply_local_apic(table, policy);
  apply_topology(table, policy.vcpus);
  apply_kvm_leaves(table, policy);
  apply_brand(table, policy.brand);
  if (!policy.tsc_rate) {
    std::erase_if(table, [](const CpuidEntry& entry) {
      return entry.function == kTscLeaf || entry.function == kFrequencyLeaf;
    });
  }

  for (const std::string& name : policy.remove_features) {
    // Dependents first, while the state components that they stand for are still there.
    for (const std::string_view dependent : dependent_features(name)) remove_one(table, dependent);
    remove_one(table, name);
  }
  std::vector<std::string> missing;
  for (const std::string& name : policy.add_features) {
    if (!find_cpu_feature(name)->is_set(table)) missing.push_back(name);
  }
  if (!missing.empty()) {
    return fail(ErrorCode::kUnsupported, "This host cannot give a guest the CPU features: {}",
                join(missing, ", "));
  }
  return table;
}

void set_cpu_identity(std::span<CpuidEntry> table, std::uint32_t vcpu) noexcept {
  set_topology_identity(table, vcpu);
}

namespace {

std::string read_host_cpu_brand() {
  std::array<std::uint32_t, 12> words{};
  for (unsigned i = 0; i < 3; ++i) {
    std::uint32_t* const w = &words[std::size_t{i} * 4];
    if (__get_cpuid(kBrandLeaf + i, &w[0], &w[1], &w[2], &w[3]) == 0) return {};
  }
  std::string brand(sizeof(words), '\0');
  std::memcpy(brand.data(), words.data(), sizeof(words));
  brand.resize(std::min(brand.find('\0'), brand.size()));
  const std::size_t begin = brand.find_first_not_of(' ');
  if (begin == std::string::npos) return {};
  return brand.substr(begin, brand.find_last_not_of(' ') - begin + 1);
}

}  // namespace

// Where this process is itself in a virtual machine each of the leaves is an exit.
std::string host_cpu_brand() {
  static const std::string brand = read_host_cpu_brand();
  return brand;
}

}  // namespace vmm::x86

#include "vmm/x86/cpu_features.h"

#include <algorithm>
#include <array>

namespace vmm::x86 {
namespace {

using enum CpuidRegister;

constexpr auto kFeatures = std::to_array<CpuFeature>({
    {"fpu", 1, 0, kEdx, 0},
    {"vme", 1, 0, kEdx, 1},
    {"de", 1, 0, kEdx, 2},
    {"pse", 1, 0, kEdx, 3},
    {"tsc", 1, 0, kEdx, 4},
    {"msr", 1, 0, kEdx, 5},
    {"pae", 1, 0, kEdx, 6},
    {"mce", 1, 0, kEdx, 7},
    {"cx8", 1, 0, kEdx, 8},
    {"apic", 1, 0, kEdx, 9},
    {"sep", 1, 0, kEdx, 11},
    {"mtrr", 1, 0, kEdx, 12},
    {"pge", 1, 0, kEdx, 13},
    {"mca", 1, 0, kEdx, 14},
    {"cmov", 1, 0, kEdx, 15},
    {"pat", 1, 0, kEdx, 16},
    {"pse36", 1, 0, kEdx, 17},
    {"clflush", 1, 0, kEdx, 19},
    {"dts", 1, 0, kEdx, 21},
    {"acpi", 1, 0, kEdx, 22},
    {"mmx", 1, 0, kEdx, 23},
    {"fxsr", 1, 0, kEdx, 24},
    {"sse", 1, 0, kEdx, 25},
    {"sse2", 1, 0, kEdx, 26},
    {"ss", 1, 0, kEdx, 27},
    {"ht", 1, 0, kEdx, 28},
    {"tm", 1, 0, kEdx, 29},
    {"pbe", 1, 0, kEdx, 31},
    {"pni", 1, 0, kEcx, 0},
    {"pclmulqdq", 1, 0, kEcx, 1},
    {"dtes64", 1, 0, kEcx, 2},
    {"monitor", 1, 0, kEcx, 3},
    {"ds_cpl", 1, 0, kEcx, 4},
    {"vmx", 1, 0, kEcx, 5},
    {"smx", 1, 0, kEcx, 6},
    {"est", 1, 0, kEcx, 7},
    {"tm2", 1, 0, kEcx, 8},
    {"ssse3", 1, 0, kEcx, 9},
    {"cid", 1, 0, kEcx, 10},
    {"sdbg", 1, 0, kEcx, 11},
    {"fma", 1, 0, kEcx, 12},
    {"cx16", 1, 0, kEcx, 13},
    {"xtpr", 1, 0, kEcx, 14},
    {"pdcm", 1, 0, kEcx, 15},
    {"pcid", 1, 0, kEcx, 17},
    {"dca", 1, 0, kEcx, 18},
    {"sse4_1", 1, 0, kEcx, 19},
    {"sse4_2", 1, 0, kEcx, 20},
    {"x2apic", 1, 0, kEcx, 21},
    {"movbe", 1, 0, kEcx, 22},
    {"popcnt", 1, 0, kEcx, 23},
    {"tsc_deadline_timer", 1, 0, kEcx, 24},
    {"aes", 1, 0, kEcx, 25},
    {"xsave", 1, 0, kEcx, 26},
    {"avx", 1, 0, kEcx, 28},
    {"f16c", 1, 0, kEcx, 29},
    {"rdrand", 1, 0, kEcx, 30},
    {"hypervisor", 1, 0, kEcx, 31},
    {"dtherm", 6, 0, kEax, 0},
    {"ida", 6, 0, kEax, 1},
    {"arat", 6, 0, kEax, 2},
    {"pln", 6, 0, kEax, 4},
    {"pts", 6, 0, kEax, 6},
    {"hwp", 6, 0, kEax, 7},
    {"hwp_notify", 6, 0, kEax, 8},
    {"hwp_act_window", 6, 0, kEax, 9},
    {"hwp_epp", 6, 0, kEax, 10},
    {"hwp_pkg_req", 6, 0, kEax, 11},
    {"hfi", 6, 0, kEax, 19},
    {"fsgsbase", 7, 0, kEbx, 0},
    {"tsc_adjust", 7, 0, kEbx, 1},
    {"sgx", 7, 0, kEbx, 2},
    {"bmi1", 7, 0, kEbx, 3},
    {"hle", 7, 0, kEbx, 4},
    {"avx2", 7, 0, kEbx, 5},
    {"smep", 7, 0, kEbx, 7},
    {"bmi2", 7, 0, kEbx, 8},
    {"erms", 7, 0, kEbx, 9},
    {"invpcid", 7, 0, kEbx, 10},
    {"rtm", 7, 0, kEbx, 11},
    {"cqm", 7, 0, kEbx, 12},
    {"mpx", 7, 0, kEbx, 14},
    {"rdt_a", 7, 0, kEbx, 15},
    {"avx512f", 7, 0, kEbx, 16},
    {"avx512dq", 7, 0, kEbx, 17},
    {"rdseed", 7, 0, kEbx, 18},
    {"adx", 7, 0, kEbx, 19},
    {"smap", 7, 0, kEbx, 20},
    {"avx512ifma", 7, 0, kEbx, 21},
    {"clflushopt", 7, 0, kEbx, 23},
    {"clwb", 7, 0, kEbx, 24},
    {"intel_pt", 7, 0, kEbx, 25},
    {"avx512pf", 7, 0, kEbx, 26},
    {"avx512er", 7, 0, kEbx, 27},
    {"avx512cd", 7, 0, kEbx, 28},
    {"sha_ni", 7, 0, kEbx, 29},
    {"avx512bw", 7, 0, kEbx, 30},
    {"avx512vl", 7, 0, kEbx, 31},
    {"avx512vbmi", 7, 0, kEcx, 1},
    {"umip", 7, 0, kEcx, 2},
    {"pku", 7, 0, kEcx, 3},
    {"waitpkg", 7, 0, kEcx, 5},
    {"avx512_vbmi2", 7, 0, kEcx, 6},
    {"user_shstk", 7, 0, kEcx, 7},
    {"gfni", 7, 0, kEcx, 8},
    {"vaes", 7, 0, kEcx, 9},
    {"vpclmulqdq", 7, 0, kEcx, 10},
    {"avx512_vnni", 7, 0, kEcx, 11},
    {"avx512_bitalg", 7, 0, kEcx, 12},
    {"tme", 7, 0, kEcx, 13},
    {"avx512_vpopcntdq", 7, 0, kEcx, 14},
    {"la57", 7, 0, kEcx, 16},
    {"rdpid", 7, 0, kEcx, 22},
    {"bus_lock_detect", 7, 0, kEcx, 24},
    {"cldemote", 7, 0, kEcx, 25},
    {"movdiri", 7, 0, kEcx, 27},
    {"movdir64b", 7, 0, kEcx, 28},
    {"enqcmd", 7, 0, kEcx, 29},
    {"sgx_lc", 7, 0, kEcx, 30},
    {"avx512_4vnniw", 7, 0, kEdx, 2},
    {"avx512_4fmaps", 7, 0, kEdx, 3},
    {"fsrm", 7, 0, kEdx, 4},
    {"avx512_vp2intersect", 7, 0, kEdx, 8},
    {"md_clear", 7, 0, kEdx, 10},
    {"serialize", 7, 0, kEdx, 14},
    {"tsxldtrk", 7, 0, kEdx, 16},
    {"pconfig", 7, 0, kEdx, 18},
    {"arch_lbr", 7, 0, kEdx, 19},
    {"ibt", 7, 0, kEdx, 20},
    {"amx_bf16", 7, 0, kEdx, 22},
    {"avx512_fp16", 7, 0, kEdx, 23},
    {"amx_tile", 7, 0, kEdx, 24},
    {"amx_int8", 7, 0, kEdx, 25},
    {"flush_l1d", 7, 0, kEdx, 28},
    {"arch_capabilities", 7, 0, kEdx, 29},
    {"avx_vnni", 7, 1, kEax, 4},
    {"avx512_bf16", 7, 1, kEax, 5},
    {"cmpccxadd", 7, 1, kEax, 7},
    {"fzrm", 7, 1, kEax, 10},
    {"fsrs", 7, 1, kEax, 11},
    {"fsrc", 7, 1, kEax, 12},
    {"fred", 7, 1, kEax, 17},
    {"lkgs", 7, 1, kEax, 18},
    {"amx_fp16", 7, 1, kEax, 21},
    {"avx_ifma", 7, 1, kEax, 23},
    {"lam", 7, 1, kEax, 26},
    {"xsaveopt", 0xd, 1, kEax, 0},
    {"xsavec", 0xd, 1, kEax, 1},
    {"xgetbv1", 0xd, 1, kEax, 2},
    {"xsaves", 0xd, 1, kEax, 3},
    {"lahf_lm", 0x8000'0001, 0, kEcx, 0},
    {"cmp_legacy", 0x8000'0001, 0, kEcx, 1},
    {"svm", 0x8000'0001, 0, kEcx, 2},
    {"extapic", 0x8000'0001, 0, kEcx, 3},
    {"cr8_legacy", 0x8000'0001, 0, kEcx, 4},
    {"abm", 0x8000'0001, 0, kEcx, 5},
    {"sse4a", 0x8000'0001, 0, kEcx, 6},
    {"misalignsse", 0x8000'0001, 0, kEcx, 7},
    {"3dnowprefetch", 0x8000'0001, 0, kEcx, 8},
    {"osvw", 0x8000'0001, 0, kEcx, 9},
    {"ibs", 0x8000'0001, 0, kEcx, 10},
    {"xop", 0x8000'0001, 0, kEcx, 11},
    {"skinit", 0x8000'0001, 0, kEcx, 12},
    {"wdt", 0x8000'0001, 0, kEcx, 13},
    {"lwp", 0x8000'0001, 0, kEcx, 15},
    {"fma4", 0x8000'0001, 0, kEcx, 16},
    {"tce", 0x8000'0001, 0, kEcx, 17},
    {"nodeid_msr", 0x8000'0001, 0, kEcx, 19},
    {"tbm", 0x8000'0001, 0, kEcx, 21},
    {"topoext", 0x8000'0001, 0, kEcx, 22},
    {"perfctr_core", 0x8000'0001, 0, kEcx, 23},
    {"perfctr_nb", 0x8000'0001, 0, kEcx, 24},
    {"bpext", 0x8000'0001, 0, kEcx, 26},
    {"ptsc", 0x8000'0001, 0, kEcx, 27},
    {"perfctr_llc", 0x8000'0001, 0, kEcx, 28},
    {"mwaitx", 0x8000'0001, 0, kEcx, 29},
    {"syscall", 0x8000'0001, 0, kEdx, 11},
    {"mp", 0x8000'0001, 0, kEdx, 19},
    {"nx", 0x8000'0001, 0, kEdx, 20},
    {"mmxext", 0x8000'0001, 0, kEdx, 22},
    {"fxsr_opt", 0x8000'0001, 0, kEdx, 25},
    {"pdpe1gb", 0x8000'0001, 0, kEdx, 26},
    {"rdtscp", 0x8000'0001, 0, kEdx, 27},
    {"lm", 0x8000'0001, 0, kEdx, 29},
    {"3dnowext", 0x8000'0001, 0, kEdx, 30},
    {"3dnow", 0x8000'0001, 0, kEdx, 31},
    {"overflow_recov", 0x8000'0007, 0, kEbx, 0},
    {"succor", 0x8000'0007, 0, kEbx, 1},
    {"smca", 0x8000'0007, 0, kEbx, 3},
    {"clzero", 0x8000'0008, 0, kEbx, 0},
    {"irperf", 0x8000'0008, 0, kEbx, 1},
    {"xsaveerptr", 0x8000'0008, 0, kEbx, 2},
    {"rdpru", 0x8000'0008, 0, kEbx, 4},
    {"wbnoinvd", 0x8000'0008, 0, kEbx, 9},
    {"amd_ppin", 0x8000'0008, 0, kEbx, 23},
    {"virt_ssbd", 0x8000'0008, 0, kEbx, 25},
    {"cppc", 0x8000'0008, 0, kEbx, 27},
    {"brs", 0x8000'0008, 0, kEbx, 31},
    {"avx_vnni_int8", 7, 1, kEdx, 4},
    {"avx_ne_convert", 7, 1, kEdx, 5},
    {"amx_complex", 7, 1, kEdx, 8},
    {"prefetchiti", 7, 1, kEdx, 14},
});

// `feature` needs `base`.
struct Dependency {
  std::string_view feature;
  std::string_view base;
};

constexpr auto kDependencies = std::to_array<Dependency>({
    {"x2apic", "apic"},
    {"tsc_deadline_timer", "apic"},
    {"sse", "fxsr"},
    {"sse2", "sse"},
    {"pni", "sse2"},
    {"aes", "sse2"},
    {"pclmulqdq", "sse2"},
    {"gfni", "sse2"},
    {"sha_ni", "sse2"},
    {"ssse3", "pni"},
    {"sse4_1", "ssse3"},
    {"sse4_2", "sse4_1"},
    {"xsaveopt", "xsave"},
    {"xsavec", "xsave"},
    {"xgetbv1", "xsave"},
    {"xsaves", "xsave"},
    {"pku", "xsave"},
    {"mpx", "xsave"},
    {"amx_tile", "xsave"},
    {"avx", "xsave"},
    {"avx", "sse4_2"},
    {"avx2", "avx"},
    {"fma", "avx"},
    {"f16c", "avx"},
    {"xop", "avx"},
    {"fma4", "avx"},
    {"vaes", "avx"},
    {"vpclmulqdq", "avx"},
    {"avx_vnni", "avx2"},
    {"avx_vnni_int8", "avx2"},
    {"avx_ne_convert", "avx2"},
    {"avx_ifma", "avx2"},
    {"avx512f", "avx2"},
    {"avx512dq", "avx512f"},
    {"avx512ifma", "avx512f"},
    {"avx512pf", "avx512f"},
    {"avx512er", "avx512f"},
    {"avx512cd", "avx512f"},
    {"avx512bw", "avx512f"},
    {"avx512vl", "avx512f"},
    {"avx512vbmi", "avx512f"},
    {"avx512_vbmi2", "avx512f"},
    {"avx512_vnni", "avx512f"},
    {"avx512_bitalg", "avx512f"},
    {"avx512_vpopcntdq", "avx512f"},
    {"avx512_4vnniw", "avx512f"},
    {"avx512_4fmaps", "avx512f"},
    {"avx512_vp2intersect", "avx512f"},
    {"avx512_bf16", "avx512f"},
    {"avx512_fp16", "avx512f"},
    {"amx_bf16", "amx_tile"},
    {"amx_int8", "amx_tile"},
    {"amx_fp16", "amx_tile"},
    {"amx_complex", "amx_tile"},
});

template <typename Entry>
auto& pick(Entry& entry, CpuidRegister reg) noexcept {
  switch (reg) {
    case kEax:
      return entry.eax;
    case kEbx:
      return entry.ebx;
    case kEcx:
      return entry.ecx;
    case kEdx:
      break;
  }
  return entry.edx;
}

bool holds(const CpuidEntry& entry, const CpuFeature& feature) noexcept {
  return entry.function == feature.function &&
         (entry.index_matters ? entry.index : 0) == feature.index;
}

}  // namespace

bool CpuFeature::is_set(std::span<const CpuidEntry> entries) const noexcept {
  return std::any_of(entries.begin(), entries.end(), [&](const CpuidEntry& entry) {
    return holds(entry, *this) && (pick(entry, reg) >> bit & 1) != 0;
  });
}

void CpuFeature::set(std::span<CpuidEntry> entries, bool value) const noexcept {
  for (CpuidEntry& entry : entries) {
    if (!holds(entry, *this)) continue;
    std::uint32_t& word = pick(entry, reg);
    const std::uint32_t mask = std::uint32_t{1} << bit;
    word = value ? word | mask : word & ~mask;
  }
}

std::span<const CpuFeature> cpu_features() noexcept { return kFeatures; }

const CpuFeature* find_cpu_feature(std::string_view name) noexcept {
  const auto* const found =
      std::find_if(kFeatures.begin(), kFeatures.end(),
                   [&](const CpuFeature& feature) { return feature.name == name; });
  return found == kFeatures.end() ? nullptr : found;
}

std::vector<std::string_view> dependent_features(std::string_view name) {
  std::vector<std::string_view> found = {name};
  // Grows while it is walked; each feature enters once, so it ends.
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (const Dependency& dependency : kDependencies) {
      if (dependency.base == found[i] &&
          std::find(found.begin(), found.end(), dependency.feature) == found.end()) {
        found.push_back(dependency.feature);
      }
    }
  }
  found.erase(found.begin());
  return found;
}

std::uint8_t physical_address_bits(std::span<const CpuidEntry> cpuid) noexcept {
  constexpr std::uint32_t kSizes = 0x80000008;
  constexpr std::uint8_t kWithoutLeaf = 36;
  const auto sizes = std::find_if(cpuid.begin(), cpuid.end(),
                                  [](const CpuidEntry& e) { return e.function == kSizes; });
  return sizes == cpuid.end() ? kWithoutLeaf : static_cast<std::uint8_t>(sizes->eax & 0xff);
}

}  // namespace vmm::x86

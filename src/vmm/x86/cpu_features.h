// CPU features by name: which bit of CPUID each is, and which need each other.
//
// Names are those that Linux prints in /proc/cpuinfo. Not in the table: bits that follow CR4
// (osxsave, ospke), and names that Linux makes up from several bits (ibrs, ssbd, ...).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace vmm::x86 {

// One answer of the CPUID instruction. Plain data, as KVM keeps it.
struct CpuidEntry {
  std::uint32_t function = 0;  // EAX on the way in
  std::uint32_t index = 0;     // ECX on the way in
  bool index_matters = false;
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  bool operator==(const CpuidEntry&) const = default;
  static void fields(auto&& f) {
    f("function", &CpuidEntry::function);
    f("index", &CpuidEntry::index);
    f("index_matters", &CpuidEntry::index_matters);
    f("eax", &CpuidEntry::eax);
    f("ebx", &CpuidEntry::ebx);
    f("ecx", &CpuidEntry::ecx);
    f("edx", &CpuidEntry::edx);
  }
};

// MAXPHYADDR: how many bits a guest-physical address has (SDM volume 2, CPUID; 36 without the
// leaf).
std::uint8_t physical_address_bits(std::span<const CpuidEntry> cpuid) noexcept;

enum class CpuidRegister : std::uint8_t { kEax, kEbx, kEcx, kEdx };

// Where a feature's bit is.
struct CpuFeature {
  std::string_view name;
  std::uint32_t function = 0;
  std::uint32_t index = 0;
  CpuidRegister reg = CpuidRegister::kEax;
  std::uint8_t bit = 0;

  bool is_set(std::span<const CpuidEntry> entries) const noexcept;
  // Changes the bit where the leaf exists; a leaf that does not exist has no features.
  void set(std::span<CpuidEntry> entries, bool value) const noexcept;
};

// All features that have a name, in the order of their leaves.
std::span<const CpuFeature> cpu_features() noexcept;
// The feature of this name, or nullptr.
const CpuFeature* find_cpu_feature(std::string_view name) noexcept;

// The features that make no sense without `name`, directly or through others: without AVX there is
// no AVX2 and no AVX-512 (SDM volume 1, chapters 13 to 15).
std::vector<std::string_view> dependent_features(std::string_view name);

}  // namespace vmm::x86

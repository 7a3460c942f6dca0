#include "vmm/x86/cpuid_topology.h"

#include <algorithm>
#include <bit>

namespace vmm::x86 {
namespace {

constexpr std::uint32_t kFeatureLeaf = 1;
constexpr std::uint32_t kCacheLeaf = 4;
constexpr std::uint32_t kTopologyLeaf = 0xb;
constexpr std::uint32_t kTopologyLeafV2 = 0x1f;
constexpr std::uint32_t kAmdFeatureLeaf = 0x8000'0001;
constexpr std::uint32_t kAmdSizeLeaf = 0x8000'0008;
constexpr std::uint32_t kAmdCacheLeaf = 0x8000'001d;
constexpr std::uint32_t kAmdTopologyLeaf = 0x8000'001e;

constexpr std::uint32_t kHtt = 1U << 28;       // leaf 1, EDX: EBX[23:16] counts
constexpr std::uint32_t kCmpLegacy = 1U << 1;  // leaf 0x80000001, ECX: several cores, no threads
constexpr std::uint32_t kLastLevelCache = 3;   // the level that all cores share

// Level types of leaf 0xb.
constexpr std::uint32_t kLevelSmt = 1;
constexpr std::uint32_t kLevelCore = 2;

// The field [high:low] of `word` with another value.
constexpr std::uint32_t with_field(std::uint32_t word, unsigned high, unsigned low,
                                   std::uint32_t value) noexcept {
  const std::uint32_t mask = (std::uint32_t{2} << (high - low)) - 1;
  return (word & ~(mask << low)) | (value & mask) << low;
}

// Levels of an extended topology leaf: threads of a core, cores of the package, the end.
void add_levels(std::vector<CpuidEntry>& table, std::uint32_t function, std::uint32_t vcpus,
                std::uint32_t id_bits) {
  std::erase_if(table, [&](const CpuidEntry& entry) { return entry.function == function; });
  const auto add = [&](std::uint32_t index, std::uint32_t shift, std::uint32_t count,
                       std::uint32_t type) {
    table.push_back({.function = function,
                     .index = index,
                     .index_matters = true,
                     .eax = shift,
                     .ebx = count,
                     .ecx = type << 8 | index});
  };
  add(0, 0, 1, kLevelSmt);
  add(1, id_bits, vcpus, kLevelCore);
  add(2, 0, 0, 0);
}

std::uint32_t last_basic_leaf(std::span<const CpuidEntry> table) noexcept {
  for (const CpuidEntry& entry : table) {
    if (entry.function == 0) return entry.eax;
  }
  return 0;
}

}  // namespace

bool is_amd(std::span<const CpuidEntry> table) noexcept {
  constexpr std::uint32_t kAuthenticAmd = 0x6874'7541;  // "Auth", the vendor's first letters in EBX
  constexpr std::uint32_t kHygonGenuine = 0x6f67'7948;  // "Hygo"
  return std::any_of(table.begin(), table.end(), [](const CpuidEntry& entry) {
    return entry.function == 0 && (entry.ebx == kAuthenticAmd || entry.ebx == kHygonGenuine);
  });
}

void apply_topology(std::vector<CpuidEntry>& table, std::uint32_t vcpus) {
  const std::uint32_t ids = std::bit_ceil(vcpus);  // the APIC IDs that a package takes
  const auto id_bits = static_cast<std::uint32_t>(std::countr_zero(ids));
  const bool amd = is_amd(table);
  const bool several = vcpus > 1;

  for (CpuidEntry& entry : table) {
    switch (entry.function) {
      case kFeatureLeaf:
        entry.ebx = with_field(entry.ebx, 31, 24, 0);
        entry.ebx = with_field(entry.ebx, 23, 16, std::min<std::uint32_t>(ids, 255));
        entry.edx = several ? entry.edx | kHtt : entry.edx & ~kHtt;
        break;
      case kCacheLeaf:
      case kAmdCacheLeaf: {
        if ((entry.eax & 0x1f) == 0) break;  // no cache here
        const std::uint32_t level = entry.eax >> 5 & 7;
        entry.eax = with_field(entry.eax, 25, 14, level >= kLastLevelCache ? ids - 1 : 0);
        if (entry.function == kCacheLeaf) {
          entry.eax = with_field(entry.eax, 31, 26, std::min<std::uint32_t>(ids - 1, 63));
        }
        break;
      }
      case kAmdFeatureLeaf:
        if (amd) entry.ecx = several ? entry.ecx | kCmpLegacy : entry.ecx & ~kCmpLegacy;
        break;
      case kAmdSizeLeaf:
        if (!amd) break;
        entry.ecx = with_field(entry.ecx, 7, 0, vcpus - 1);
        entry.ecx = with_field(entry.ecx, 15, 12, id_bits);
        break;
      case kAmdTopologyLeaf:
        if (amd) entry.eax = entry.ebx = entry.ecx = 0;  // core 0 of node 0, one thread a core
        break;
      default:
        break;
    }
  }
  for (const std::uint32_t leaf : {kTopologyLeaf, kTopologyLeafV2}) {
    if (last_basic_leaf(table) >= leaf) add_levels(table, leaf, vcpus, id_bits);
  }
}

void set_topology_identity(std::span<CpuidEntry> table, std::uint32_t vcpu) noexcept {
  const bool amd = is_amd(table);
  for (CpuidEntry& entry : table) {
    switch (entry.function) {
      case kFeatureLeaf:
        entry.ebx = with_field(entry.ebx, 31, 24, vcpu);
        break;
      case kTopologyLeaf:
      case kTopologyLeafV2:
        entry.edx = vcpu;
        break;
      case kAmdTopologyLeaf:
        if (!amd) break;
        entry.eax = vcpu;
        entry.ebx = with_field(entry.ebx, 7, 0, vcpu);
        break;
      default:
        break;
    }
  }
}

}  // namespace vmm::x86

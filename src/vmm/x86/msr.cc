#include "vmm/x86/msr.h"

namespace vmm::x86 {
namespace {

// IA32_MISC_ENABLE (SDM volume 4, table 2-2).
constexpr std::uint64_t kFastStrings = 1U << 0;
constexpr std::uint64_t kBtsUnavailable = 1U << 11;   // no branch trace store here
constexpr std::uint64_t kPebsUnavailable = 1U << 12;  // nor event-based sampling

// IA32_MTRR_DEF_TYPE (SDM volume 3, 12.11.2.1).
constexpr std::uint64_t kMtrrEnable = 1U << 11;
constexpr std::uint64_t kWriteBack = 6;

// HWCR (AMD APM volume 2, 3.2.10): the TSC counts at the frequency of P-state 0.
constexpr std::uint64_t kTscFreqSel = 1U << 24;

// The eight entries after a reset (SDM volume 3, table 12-12): WB, WT, UC-, UC, twice.
constexpr std::uint64_t kPatReset = 0x0007'0406'0007'0406;

}  // namespace

std::vector<MsrValue> boot_msrs() {
  return {
      // Kernels look at this bit before they trust REP MOVSB.
      {kMsrIa32MiscEnable, kFastStrings | kBtsUnavailable | kPebsUnavailable},
      // All memory write-back unless page attributes say otherwise. With MTRRs off everything would
      // count as uncached, and Linux would give up PAT.
      {kMsrMtrrDefType, kMtrrEnable | kWriteBack},
      {kMsrIa32Pat, kPatReset},
      // On AMD, Linux complains of the firmware when the TSC does not say that it counts at P0's
      // speed.
      {kMsrAmdHwcr, kTscFreqSel},
  };
}

}  // namespace vmm::x86

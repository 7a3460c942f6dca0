// Numbers of model-specific registers (SDM volume 4, table 2-2; AMD64 APM volume 2, appendix A).
#pragma once

#include <cstdint>

namespace vmm::x86 {

inline constexpr std::uint32_t kMsrTsc = 0x10;
inline constexpr std::uint32_t kMsrApicBase = 0x1b;
inline constexpr std::uint32_t kMsrTscAdjust = 0x3b;
inline constexpr std::uint32_t kMsrMperf = 0xe7;
inline constexpr std::uint32_t kMsrAperf = 0xe8;
inline constexpr std::uint32_t kMsrIa32MiscEnable = 0x1a0;
inline constexpr std::uint32_t kMsrIa32Pat = 0x277;
inline constexpr std::uint32_t kMsrMtrrDefType = 0x2ff;
inline constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
inline constexpr std::uint32_t kMsrStar = 0xc0000081;
inline constexpr std::uint32_t kMsrLstar = 0xc0000082;
inline constexpr std::uint32_t kMsrCstar = 0xc0000083;
inline constexpr std::uint32_t kMsrSfmask = 0xc0000084;
inline constexpr std::uint32_t kMsrKernelGsBase = 0xc0000102;
inline constexpr std::uint32_t kMsrTscAux = 0xc0000103;
inline constexpr std::uint32_t kMsrAmdHwcr = 0xc0010015;  // AMD only: refused elsewhere

}  // namespace vmm::x86

// Where the state components lie in an XSAVE area (Intel SDM volume 1, 13.4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "vmm/x86/registers.h"

namespace vmm::completion {

// Offsets and sizes in the standard format, which differ between processors, and the alignment flag
// of the compacted format.
struct XsaveLayout {
  static constexpr unsigned kComponents = 20;  // 0 = x87, 1 = SSE, 2 = AVX, ... 18 = AMX tile data

  struct Component {
    std::uint32_t offset = 0;  // standard format
    std::uint32_t size = 0;    // 0: this processor does not have it
    bool aligned = false;      // compacted format: begins at a multiple of 64
  };
  std::array<Component, kComponents> components{};

  // The processor this runs on (CPUID leaf 0x0d).
  static XsaveLayout host() noexcept;

  // Bytes that an area for `features` needs.
  std::uint32_t standard_size(std::uint64_t features) const noexcept;
  std::uint32_t compacted_size(std::uint64_t features) const noexcept;
  // Where component `index` lies in the compacted area for `features`.
  std::uint32_t compacted_offset(std::uint64_t features, unsigned index) const noexcept;
};

// The legacy region and the header.
inline constexpr std::size_t kXsaveFcw = 0;
inline constexpr std::size_t kXsaveFip = 8;
inline constexpr std::size_t kXsaveFdp = 16;
inline constexpr std::size_t kXsaveMxcsr = 24;
inline constexpr std::size_t kXsaveMxcsrMask = 28;
inline constexpr std::size_t kXsaveXmm = 160;
inline constexpr std::size_t kXsaveXmmEnd = 416;
inline constexpr std::size_t kXsaveLegacyEnd = 512;
inline constexpr std::size_t kXsaveXstateBv = 512;
inline constexpr std::size_t kXsaveXcompBv = 520;
inline constexpr std::size_t kXsaveHeaderEnd = 576;

inline constexpr std::uint64_t kFeatureX87 = 1U << 0;
inline constexpr std::uint64_t kFeatureSse = 1U << 1;
inline constexpr std::uint64_t kFeatureAvx = 1U << 2;
inline constexpr std::uint64_t kFeatureAvx512 = 7U << 5;
inline constexpr unsigned kComponentPkru = 9;

inline constexpr std::uint32_t kMxcsrReset = 0x1f80;
inline constexpr std::uint16_t kFcwReset = 0x037f;

// A field of an area; 0 when the area is too short to have it.
template <typename T>
T xsave_field(const x86::XsaveArea& area, std::size_t offset) noexcept {
  T value{};
  if (offset + sizeof value <= area.size()) std::memcpy(&value, &area[offset], sizeof value);
  return value;
}
// Nothing happens when the area is too short.
template <typename T>
void set_xsave_field(x86::XsaveArea& area, std::size_t offset, T value) noexcept {
  if (offset + sizeof value <= area.size()) std::memcpy(&area[offset], &value, sizeof value);
}

// PKRU in a standard-format area.
std::uint32_t pkru_of(const x86::XsaveArea& area, const XsaveLayout& layout) noexcept;

}  // namespace vmm::completion

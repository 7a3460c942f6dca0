#include "vmm/completion/xsave_layout.h"

#include <cpuid.h>

#include <algorithm>

namespace vmm::completion {

namespace {

XsaveLayout read_host_layout() noexcept {
  XsaveLayout layout;
  layout.components[0] = {0, 160, false};
  layout.components[1] = {kXsaveXmm, kXsaveXmmEnd - kXsaveXmm, false};
  if (__get_cpuid_max(0, nullptr) < 0x0d) return layout;
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    __cpuid_count(0x0d, i, eax, ebx, ecx, edx);
    const bool supervisor = (ecx & 1) != 0;
    if (!supervisor) layout.components[i] = {ebx, eax, (ecx & 2) != 0};
  }
  return layout;
}

}  // namespace

// Where this process is itself in a virtual machine each of the leaves is an exit.
XsaveLayout XsaveLayout::host() noexcept {
  static const XsaveLayout layout = read_host_layout();
  return layout;
}

std::uint32_t XsaveLayout::standard_size(std::uint64_t features) const noexcept {
  std::uint32_t end = kXsaveHeaderEnd;
  for (unsigned i = 2; i < kComponents; ++i) {
    if ((features >> i & 1) != 0) end = std::max(end, components[i].offset + components[i].size);
  }
  return end;
}

std::uint32_t XsaveLayout::compacted_offset(std::uint64_t features, unsigned index) const noexcept {
  std::uint32_t at = kXsaveHeaderEnd;
  for (unsigned i = 2; i < kComponents; ++i) {
    if ((features >> i & 1) == 0) continue;
    if (components[i].aligned) at = (at + 63) & ~63U;
    if (i == index) return at;
    at += components[i].size;
  }
  return at;
}

std::uint32_t XsaveLayout::compacted_size(std::uint64_t features) const noexcept {
  return compacted_offset(features, kComponents);
}

std::uint32_t pkru_of(const x86::XsaveArea& area, const XsaveLayout& layout) noexcept {
  const auto& component = layout.components[kComponentPkru];
  const auto in_use = xsave_field<std::uint64_t>(area, kXsaveXstateBv);
  if (component.size < 4 || (in_use >> kComponentPkru & 1) == 0) return 0;
  return xsave_field<std::uint32_t>(area, component.offset);
}

}  // namespace vmm::completion

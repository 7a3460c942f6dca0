#include "vmm/completion/xsave_rules.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "vmm/completion/data_access.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/xsave_layout.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kCompacted = 1ULL << 63;

using Area = std::vector<std::byte>;

// The memory operand, resolved, checked for alignment and translated.
Result<Step> open_operand(const Context& context, const Instruction& instruction,
                          std::uint32_t size, std::uint32_t alignment, Direction direction,
                          DataAccess& access) {
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr) return Step::cannot("the instruction has no single memory operand");
  LinearOperand linear;
  const Step resolved = resolve_operand(context, instruction, *operand, size, direction, linear);
  if (!resolved.done()) return resolved;
  if (linear.address % alignment != 0) return Step::general_protection();
  return DataAccess::translate(context, linear, direction, access);
}

std::uint64_t requested_features(const Context& context) noexcept {
  return (context.registers.gpr[x86::kRdx] << 32) | (context.registers.gpr[x86::kRax] & 0xffffffff);
}

// Features in use; MXCSR counts as part of SSE (SDM volume 1, 13.6).
std::uint64_t in_use(const x86::XsaveArea& image) noexcept {
  auto features = xsave_field<std::uint64_t>(image, kXsaveXstateBv);
  if (xsave_field<std::uint32_t>(image, kXsaveMxcsr) != kMxcsrReset) features |= kFeatureSse;
  return features;
}

void copy(Area& to, std::size_t to_offset, const Area& from, std::size_t from_offset,
          std::size_t size) {
  if (to_offset + size > to.size() || from_offset + size > from.size()) return;
  std::memcpy(&to[to_offset], &from[from_offset], size);
}

// The image holds instruction and data pointers in the 64-bit format of FXSAVE64. Without REX.W
// memory has 32-bit offsets and selectors; the selectors are gone, as on processors that deprecate
// them.
void narrow_pointers(Area& area) noexcept {
  set_xsave_field<std::uint32_t>(area, kXsaveFip + 4, 0);
  set_xsave_field<std::uint32_t>(area, kXsaveFdp + 4, 0);
}

// SDM volume 1, 11.6.4: which MXCSR bits this processor has.
bool mxcsr_is_valid(const x86::XsaveArea& image, std::uint32_t value) noexcept {
  const auto mask = xsave_field<std::uint32_t>(image, kXsaveMxcsrMask);
  return (value & ~(mask != 0 ? mask : 0xffbfU)) == 0;
}

bool is_wide(const Instruction& instruction) noexcept { return instruction.info().raw.rex.W != 0; }

bool is_any(const Instruction& instruction, std::initializer_list<ZydisMnemonic> list) noexcept {
  return std::find(list.begin(), list.end(), instruction.mnemonic()) != list.end();
}

}  // namespace

Result<Step> xsave_rule(Context& context, const Instruction& instruction) {
  if (!context.cr4(x86::kCr4Osxsave)) return Step::undefined();
  const bool supervisor = is_any(instruction, {ZYDIS_MNEMONIC_XSAVES, ZYDIS_MNEMONIC_XSAVES64});
  const bool compacted =
      supervisor || is_any(instruction, {ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64});
  if (supervisor && context.cpl() != 0) return Step::general_protection();
  if (context.cr0(x86::kCr0Ts)) return Step::fault(x86::Vector::kDeviceNotAvailable);
  const XsaveLayout& layout = context.xsave_layout();
  const std::uint64_t features = requested_features(context) & VMM_TRY(context.xcr0());
  const std::uint32_t size =
      compacted ? layout.compacted_size(features) : layout.standard_size(features);
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, size, 64, Direction::kReadWrite, access));

  const x86::XsaveArea& image = *VMM_TRY(context.xsave());
  const std::uint64_t used = in_use(image) & features;
  const std::uint64_t written = compacted ? used : features;
  Area area(size);
  VMM_TRY(access.gather(context, area));
  if ((written & kFeatureX87) != 0) {
    copy(area, 0, image, 0, kXsaveMxcsr);
    copy(area, 32, image, 32, kXsaveXmm - 32);
    if (!is_wide(instruction)) narrow_pointers(area);
  }
  if ((written & kFeatureSse) != 0) {
    copy(area, kXsaveXmm, image, kXsaveXmm, kXsaveXmmEnd - kXsaveXmm);
  }
  // The standard format writes MXCSR with AVX, too.
  if ((written & (compacted ? kFeatureSse : kFeatureSse | kFeatureAvx)) != 0) {
    copy(area, kXsaveMxcsr, image, kXsaveMxcsr, 8);
  }
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    if ((written >> i & 1) == 0) continue;
    const auto& component = layout.components[i];
    copy(area, compacted ? layout.compacted_offset(features, i) : component.offset, image,
         component.offset, component.size);
  }
  const auto old = xsave_field<std::uint64_t>(area, kXsaveXstateBv);
  set_xsave_field(area, kXsaveXstateBv, compacted ? used : (old & ~features) | used);
  if (compacted) set_xsave_field(area, kXsaveXcompBv, features | kCompacted);
  VMM_TRY(access.scatter(context, area));
  return Step::ok();
}

namespace {

// What XRSTOR demands of a header (SDM volume 1, 13.8.1 and 13.8.2); nothing: #GP.
bool header_is_valid(const Area& area, std::uint64_t xcr0, bool compacted) noexcept {
  const auto xstate_bv = xsave_field<std::uint64_t>(area, kXsaveXstateBv);
  const auto xcomp_bv = xsave_field<std::uint64_t>(area, kXsaveXcompBv);
  for (std::size_t at = kXsaveXcompBv + 8; at < kXsaveHeaderEnd; at += 8) {
    // The standard format only reserves the first eight of these.
    if (!compacted && at > kXsaveXcompBv + 8) break;
    if (xsave_field<std::uint64_t>(area, at) != 0) return false;
  }
  if (!compacted) return xcomp_bv == 0 && (xstate_bv & ~xcr0) == 0;
  const std::uint64_t held = xcomp_bv & ~kCompacted;
  return (held & ~xcr0) == 0 && (xstate_bv & ~held) == 0;
}

void reset_x87(x86::XsaveArea& image) {
  std::fill_n(image.begin(), kXsaveMxcsr, std::byte{0});
  std::fill(image.begin() + 32, image.begin() + kXsaveXmm, std::byte{0});
  set_xsave_field(image, kXsaveFcw, kFcwReset);
}

// Loads component `index` from the area, or resets it.
void restore_component(x86::XsaveArea& image, const XsaveLayout& layout, unsigned index,
                       const Area* area, std::uint32_t area_offset) {
  const auto& component = layout.components[index];
  if (component.offset + std::size_t{component.size} > image.size()) return;
  if (area != nullptr) {
    copy(image, component.offset, *area, area_offset, component.size);
  } else {
    std::fill_n(image.begin() + component.offset, component.size, std::byte{0});
  }
}

}  // namespace

Result<Step> xrstor_rule(Context& context, const Instruction& instruction) {
  if (!context.cr4(x86::kCr4Osxsave)) return Step::undefined();
  const bool supervisor = is_any(instruction, {ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_XRSTORS64});
  if (supervisor && context.cpl() != 0) return Step::general_protection();
  if (context.cr0(x86::kCr0Ts)) return Step::fault(x86::Vector::kDeviceNotAvailable);
  const XsaveLayout& layout = context.xsave_layout();
  const std::uint64_t xcr0 = VMM_TRY(context.xcr0());
  const std::uint64_t requested = requested_features(context) & xcr0;

  // The header says how large the rest is.
  DataAccess head;
  VMM_STEP(open_operand(context, instruction, kXsaveHeaderEnd, 64, Direction::kRead, head));
  Area area(kXsaveHeaderEnd);
  VMM_TRY(head.gather(context, area));
  const auto xstate_bv = xsave_field<std::uint64_t>(area, kXsaveXstateBv);
  const auto held = xsave_field<std::uint64_t>(area, kXsaveXcompBv) & ~kCompacted;
  const bool compacted = (xsave_field<std::uint64_t>(area, kXsaveXcompBv) & kCompacted) != 0;
  if (supervisor && !compacted) return Step::general_protection();
  if (!header_is_valid(area, xcr0, compacted)) return Step::general_protection();

  const std::uint64_t loaded = requested & xstate_bv;
  const std::uint32_t size = compacted ? layout.compacted_size(held) : layout.standard_size(loaded);
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, size, 64, Direction::kRead, access));
  Area body(size);
  VMM_TRY(access.gather(context, body));
  // The header was judged; the guest may have changed it since.
  std::copy(area.begin() + kXsaveXstateBv, area.end(), body.begin() + kXsaveXstateBv);

  x86::XsaveArea& image = *VMM_TRY(context.xsave());
  const auto mxcsr = xsave_field<std::uint32_t>(body, kXsaveMxcsr);
  const bool loads_mxcsr =
      compacted ? (loaded & kFeatureSse) != 0 : (requested & (kFeatureSse | kFeatureAvx)) != 0;
  if (loads_mxcsr && !mxcsr_is_valid(image, mxcsr)) return Step::general_protection();

  if ((requested & kFeatureX87) != 0) {
    reset_x87(image);
    if ((loaded & kFeatureX87) != 0) {
      copy(image, 0, body, 0, kXsaveMxcsr);
      copy(image, 32, body, 32, kXsaveXmm - 32);
      if (!is_wide(instruction)) narrow_pointers(image);
    }
  }
  if ((requested & kFeatureSse) != 0) {
    restore_component(image, layout, 1, (loaded & kFeatureSse) != 0 ? &body : nullptr, kXsaveXmm);
  }
  if (loads_mxcsr) {
    set_xsave_field(image, kXsaveMxcsr, mxcsr);
  } else if (compacted && (requested & kFeatureSse) != 0) {
    set_xsave_field(image, kXsaveMxcsr, kMxcsrReset);
  }
  for (unsigned i = 2; i < XsaveLayout::kComponents; ++i) {
    if ((requested >> i & 1) == 0) continue;
    const bool load = (loaded >> i & 1) != 0;
    restore_component(image, layout, i, load ? &body : nullptr,
                      compacted ? layout.compacted_offset(held, i) : layout.components[i].offset);
  }
  std::uint64_t used = (xsave_field<std::uint64_t>(image, kXsaveXstateBv) & ~requested) | loaded;
  if (xsave_field<std::uint32_t>(image, kXsaveMxcsr) != kMxcsrReset) used |= kFeatureSse;
  set_xsave_field(image, kXsaveXstateBv, used);
  context.mark_xsave_changed();
  return Step::ok();
}

Result<Step> fxsave_rule(Context& context, const Instruction& instruction) {
  if (context.cr0(x86::kCr0Em) || context.cr0(x86::kCr0Ts)) {
    return Step::fault(x86::Vector::kDeviceNotAvailable);
  }
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, kXsaveLegacyEnd, 16, Direction::kReadWrite, access));
  const x86::XsaveArea& image = *VMM_TRY(context.xsave());
  Area area(kXsaveLegacyEnd);
  VMM_TRY(access.gather(context, area));
  copy(area, 0, image, 0, kXsaveXmmEnd);  // bytes 416 to 511 are left as they are
  if (!is_wide(instruction)) narrow_pointers(area);
  VMM_TRY(access.scatter(context, area));
  return Step::ok();
}

Result<Step> fxrstor_rule(Context& context, const Instruction& instruction) {
  if (context.cr0(x86::kCr0Em) || context.cr0(x86::kCr0Ts)) {
    return Step::fault(x86::Vector::kDeviceNotAvailable);
  }
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, kXsaveLegacyEnd, 16, Direction::kRead, access));
  Area area(kXsaveLegacyEnd);
  VMM_TRY(access.gather(context, area));
  x86::XsaveArea& image = *VMM_TRY(context.xsave());
  if (!mxcsr_is_valid(image, xsave_field<std::uint32_t>(area, kXsaveMxcsr))) {
    return Step::general_protection();
  }
  const auto mask = xsave_field<std::uint32_t>(image, kXsaveMxcsrMask);
  copy(image, 0, area, 0, kXsaveXmmEnd);
  set_xsave_field(image, kXsaveMxcsrMask, mask);
  if (!is_wide(instruction)) narrow_pointers(image);
  set_xsave_field(image, kXsaveXstateBv,
                  xsave_field<std::uint64_t>(image, kXsaveXstateBv) | kFeatureX87 | kFeatureSse);
  context.mark_xsave_changed();
  return Step::ok();
}

Result<Step> ldmxcsr_rule(Context& context, const Instruction& instruction) {
  VMM_STEP(check_fpu(context, instruction));
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, 4, 1, Direction::kRead, access));
  std::array<std::byte, 4> bytes{};
  VMM_TRY(access.gather(context, bytes));
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  x86::XsaveArea& image = *VMM_TRY(context.xsave());
  if (!mxcsr_is_valid(image, value)) return Step::general_protection();
  set_xsave_field(image, kXsaveMxcsr, value);
  // Without this bit the image's MXCSR would be ignored.
  set_xsave_field(image, kXsaveXstateBv,
                  xsave_field<std::uint64_t>(image, kXsaveXstateBv) | kFeatureSse);
  context.mark_xsave_changed();
  return Step::ok();
}

Result<Step> stmxcsr_rule(Context& context, const Instruction& instruction) {
  VMM_STEP(check_fpu(context, instruction));
  DataAccess access;
  VMM_STEP(open_operand(context, instruction, 4, 1, Direction::kWrite, access));
  const x86::XsaveArea& image = *VMM_TRY(context.xsave());
  std::array<std::byte, 4> bytes{};
  std::memcpy(bytes.data(), &image[kXsaveMxcsr], bytes.size());
  VMM_TRY(access.scatter(context, bytes));
  return Step::ok();
}

}  // namespace vmm::completion

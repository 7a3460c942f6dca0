#include "vmm/completion/descriptor.h"

#include <array>

#include "base/le.h"
#include "memory/page_walk.h"

namespace vmm::completion {
namespace {

std::uint64_t address_of(const Context& context, std::uint16_t selector) noexcept {
  const bool local = (selector & 4) != 0;
  const std::uint64_t base = local ? context.system.ldt.base : context.system.gdt.base;
  return base + (selector & ~7U);
}

std::uint64_t limit_for(const Context& context, std::uint16_t selector) noexcept {
  if ((selector & 4) == 0) return context.system.gdt.limit;
  const x86::Segment& table = context.system.ldt;
  return table.unusable || !table.present ? 0 : table.limit;
}

PagingContext as_supervisor(const Context& context) {
  PagingContext paging = context.paging;
  paging.implicit_supervisor = true;
  return paging;
}

Result<Step> outcome_of(const VirtualAccess& access) {
  if (access.walk.outcome == WalkOutcome::kNonCanonical) return Step::general_protection();
  if (access.outcome == VirtualAccess::Outcome::kFault) {
    return Step::page_fault(access.walk.address.value, access.walk.error_code);
  }
  return access ? Step::ok() : Step::cannot("the descriptor table is not in RAM");
}

}  // namespace

Result<Step> read_descriptor(const Context& context, std::uint16_t selector,
                             std::optional<Descriptor>& descriptor) {
  if ((selector & ~3U) == 0) return Step::ok();
  if ((selector & ~7U) + std::uint64_t{7} > limit_for(context, selector)) return Step::ok();
  std::array<std::byte, 8> bytes{};
  VMM_STEP(outcome_of(read_virtual(context.memory(), as_supervisor(context),
                                   Gva(address_of(context, selector)), bytes, AccessKind::kRead)));
  descriptor = Descriptor{load_le(bytes)};
  return Step::ok();
}

Result<Step> mark_accessed(const Context& context, std::uint16_t selector, Descriptor& descriptor) {
  constexpr unsigned kTypeByte = 5;
  constexpr std::uint64_t kAccessed = std::uint64_t{1} << 40;
  if ((descriptor.value & kAccessed) != 0) return Step::ok();
  descriptor.value |= kAccessed;
  const std::array<std::byte, 1> byte{
      static_cast<std::byte>(descriptor.value >> 8 * kTypeByte & 0xff)};
  return outcome_of(write_virtual(context.memory(), as_supervisor(context),
                                  Gva(address_of(context, selector) + kTypeByte), byte));
}

Result<Step> segment_is_there(const Context& context, std::uint16_t selector) {
  std::optional<Descriptor> descriptor;
  VMM_STEP(read_descriptor(context, selector, descriptor));
  if (!descriptor || descriptor->is_present()) return Step::ok();
  return Step::fault(x86::Vector::kSegmentNotPresent, selector & ~3U);
}

}  // namespace vmm::completion

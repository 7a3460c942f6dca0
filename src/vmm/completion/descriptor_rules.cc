#include "vmm/completion/descriptor_rules.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/le.h"
#include "vmm/completion/data_access.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kFlagVm = 1ULL << 17;

// A segment descriptor (SDM volume 3, 3.4.5).
struct Descriptor {
  std::uint64_t value = 0;
  unsigned type() const noexcept { return (value >> 40) & 0xf; }
  bool is_code_or_data() const noexcept { return (value >> 44 & 1) != 0; }
  bool is_code() const noexcept { return is_code_or_data() && (type() & 8) != 0; }
  bool is_conforming() const noexcept { return is_code() && (type() & 4) != 0; }
  bool is_readable() const noexcept { return !is_code() || (type() & 2) != 0; }
  bool is_writable() const noexcept { return !is_code() && (type() & 2) != 0; }
  int dpl() const noexcept { return static_cast<int>(value >> 45 & 3); }
  bool is_present() const noexcept { return (value >> 47 & 1) != 0; }
  // Bits 8 to 15 and 20 to 23 of the upper half.
  std::uint64_t access_rights() const noexcept { return (value >> 32) & 0x00f0ff00; }
  std::uint64_t limit() const noexcept {
    const std::uint64_t raw = (value & 0xffff) | (value >> 32 & 0xf0000);
    return (value >> 55 & 1) != 0 ? raw << 12 | 0xfff : raw;
  }
};

// The selector operand: 16 bits of a register or of memory.
Result<Step> read_selector(Context& context, const Instruction& instruction,
                           const ZydisDecodedOperand& operand, std::uint16_t& selector) {
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    selector = static_cast<std::uint16_t>(read_gpr(context.registers, operand.reg.value));
    return Step::ok();
  }
  LinearOperand linear;
  const Step resolved = resolve_operand(context, instruction, operand, 2, Direction::kRead, linear);
  if (!resolved.done()) return resolved;
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, linear, Direction::kRead, access));
  std::array<std::byte, 2> bytes{};
  VMM_TRY(access.gather(context, bytes));
  selector = static_cast<std::uint16_t>(load_le(bytes));
  return Step::ok();
}

// The descriptor that a selector means; nothing for the null selector and beyond the table's limit.
Result<Step> read_descriptor(const Context& context, std::uint16_t selector,
                             std::optional<Descriptor>& descriptor) {
  if ((selector & ~3U) == 0) return Step::ok();
  const bool local = (selector & 4) != 0;
  const x86::Segment& ldt = context.system.ldt;
  const std::uint64_t base = local ? ldt.base : context.system.gdt.base;
  const std::uint64_t limit =
      local ? (ldt.unusable || !ldt.present ? 0 : ldt.limit) : context.system.gdt.limit;
  const std::uint64_t offset = selector & ~7ULL;
  if (offset + 7 > limit) return Step::ok();
  PagingContext paging = context.paging;
  paging.implicit_supervisor = true;
  std::array<std::byte, 8> bytes{};
  const VirtualAccess access =
      read_virtual(context.memory(), paging, Gva(base + offset), bytes, AccessKind::kRead);
  if (access.walk.outcome == WalkOutcome::kNonCanonical) return Step::general_protection();
  if (access.outcome == VirtualAccess::Outcome::kFault) {
    return Step::page_fault(access.walk.address.value, access.walk.error_code);
  }
  if (!access) return Step::cannot("the descriptor table is not in RAM");
  descriptor = Descriptor{load_le(bytes)};
  return Step::ok();
}

bool is_visible(const Context& context, std::uint16_t selector, const Descriptor& d) noexcept {
  return d.is_conforming() || d.dpl() >= std::max(context.cpl(), selector & 3);
}

bool is_system_type(const Descriptor& d, std::initializer_list<unsigned> types) noexcept {
  return d.is_code_or_data() || std::find(types.begin(), types.end(), d.type()) != types.end();
}

// These instructions are for protected mode.
bool is_available(const Context& context) noexcept {
  return context.protected_mode() && (context.registers.rflags & kFlagVm) == 0;
}

void set_zf(Context& context, bool on) noexcept {
  context.registers.rflags =
      on ? context.registers.rflags | x86::kFlagZf : context.registers.rflags & ~x86::kFlagZf;
}

// The last operand is the selector; finds its descriptor when the guest may see it.
Result<Step> look_up(Context& context, const Instruction& instruction,
                     std::optional<Descriptor>& descriptor) {
  if (!is_available(context)) return Step::undefined();
  std::uint16_t selector = 0;
  VMM_STEP(read_selector(context, instruction, instruction.visible().back(), selector));
  VMM_STEP(read_descriptor(context, selector, descriptor));
  if (descriptor && !is_visible(context, selector, *descriptor)) descriptor.reset();
  return Step::ok();
}

void answer(Context& context, const Instruction& instruction, std::optional<std::uint64_t> value) {
  set_zf(context, value.has_value());
  if (value) write_gpr(context.registers, instruction.visible()[0].reg.value, *value);
}

}  // namespace

Result<Step> verify_segment_rule(Context& context, const Instruction& instruction) {
  std::optional<Descriptor> d;
  VMM_STEP(look_up(context, instruction, d));
  const bool write = instruction.mnemonic() == ZYDIS_MNEMONIC_VERW;
  set_zf(context, d && d->is_code_or_data() && (write ? d->is_writable() : d->is_readable()));
  return Step::ok();
}

Result<Step> load_access_rights_rule(Context& context, const Instruction& instruction) {
  std::optional<Descriptor> d;
  VMM_STEP(look_up(context, instruction, d));
  const bool valid =
      d && (context.system.long_mode_active() ? is_system_type(*d, {2, 9, 11, 12})
                                              : is_system_type(*d, {1, 2, 3, 4, 5, 9, 11, 12}));
  answer(context, instruction, valid ? std::optional(d->access_rights()) : std::nullopt);
  return Step::ok();
}

Result<Step> load_limit_rule(Context& context, const Instruction& instruction) {
  std::optional<Descriptor> d;
  VMM_STEP(look_up(context, instruction, d));
  const bool valid =
      d && (context.system.long_mode_active() ? is_system_type(*d, {2, 9, 11})
                                              : is_system_type(*d, {1, 2, 3, 9, 11}));
  answer(context, instruction, valid ? std::optional(d->limit()) : std::nullopt);
  return Step::ok();
}

Result<Step> segment_is_there(const Context& context, std::uint16_t selector) {
  std::optional<Descriptor> descriptor;
  VMM_STEP(read_descriptor(context, selector, descriptor));
  if (!descriptor || descriptor->is_present()) return Step::ok();
  return Step::fault(x86::Vector::kSegmentNotPresent, selector & ~3U);
}

}  // namespace vmm::completion

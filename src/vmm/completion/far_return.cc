#include "vmm/completion/far_return.h"

#include <array>
#include <optional>
#include <span>

#include "base/le.h"
#include "memory/page_walk.h"
#include "vmm/completion/data_access.h"
#include "vmm/completion/descriptor.h"
#include "vmm/x86/flat_segment.h"
#include "vmm/x86/gdt.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kFlagNt = 1U << 14;
constexpr std::uint64_t kFlagVm = 1U << 17;
constexpr std::uint64_t kFlagsOfAll = 0x4dd5;  // CF, PF, AF, ZF, SF, TF, DF, OF, NT
constexpr std::uint64_t kFlagsOfWide = x86::kFlagRf | x86::kFlagAc | 1U << 21;  // and ID
constexpr std::uint64_t kVirtualFlags = 3U << 19;                               // VIF, VIP

// What lies on the stack, and what becomes of it.
struct Return {
  unsigned width = 4;          // bytes of each item
  unsigned items = 2;          // above the outer stack's: RIP, CS, and of IRET the flags
  std::uint64_t released = 0;  // bytes of parameters behind them
  std::array<std::uint64_t, 3> inner{};
  std::array<std::uint64_t, 2> outer{};  // RSP, SS
  std::uint64_t rip() const noexcept { return inner[0]; }
  std::uint16_t cs() const noexcept { return static_cast<std::uint16_t>(inner[1]); }
  std::uint64_t flags() const noexcept { return inner[2]; }
  std::uint16_t ss() const noexcept { return static_cast<std::uint16_t>(outer[1]); }
};

Step refused(x86::Vector vector, std::uint16_t selector) {
  return Step::fault(vector, selector & ~3U);
}

// The bits of RSP that a stack segment uses.
std::uint64_t stack_mask(const Context& context, const x86::Segment& code,
                         const x86::Segment& stack) noexcept {
  if (context.system.long_mode_active() && code.long_mode) return ~std::uint64_t{0};
  return stack.default_big ? 0xffff'ffff : 0xffff;
}

// Items of `width` bytes that lie `skip` bytes above the top of the stack.
Result<Step> read_stack(const Context& context, std::uint64_t skip, unsigned width,
                        std::span<std::uint64_t> items) {
  const std::uint64_t mask = stack_mask(context, context.system.cs, context.system.ss);
  const std::uint64_t offset = (context.registers.gpr[x86::kRsp] + skip) & mask;
  const auto size = static_cast<std::uint32_t>(items.size() * width);
  if (offset + size - 1 > mask) return Step::fault(x86::Vector::kStackFault, 0);
  LinearOperand linear;
  const Step resolved =
      resolve_register(context, ZYDIS_REGISTER_SS, offset, size, Direction::kRead, linear);
  if (!resolved.done()) return resolved;
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, linear, Direction::kRead, access));
  std::array<std::byte, 24> bytes{};
  const std::span read = std::span(bytes).first(size);
  VMM_TRY(access.gather(context, read));
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = load_le(read.subspan(i * width, width));
  return Step::ok();
}

// The code segment that is returned to, with the privilege of its selector.
Result<Step> load_code(const Context& context, std::uint16_t selector, x86::Segment& code) {
  using enum x86::Vector;
  if ((selector & ~3U) == 0) return Step::general_protection();
  std::optional<Descriptor> d;
  VMM_STEP(read_descriptor(context, selector, d));
  const int rpl = selector & 3;
  const bool fits = d && d->is_code() && rpl >= context.cpl() &&
                    (d->is_conforming() ? d->dpl() <= rpl : d->dpl() == rpl);
  if (!fits) return refused(kGeneralProtection, selector);
  code = x86::segment_of(selector, d->value);
  if (context.system.long_mode_active() && code.long_mode && code.default_big) {
    return refused(kGeneralProtection, selector);
  }
  if (!d->is_present()) return refused(kSegmentNotPresent, selector);
  VMM_STEP(mark_accessed(context, selector, *d));
  code.type |= 1;
  return Step::ok();
}

// Its stack, when that is popped, too. 64-bit code above CPL 3 may do without one.
Result<Step> load_stack(const Context& context, std::uint16_t selector, const x86::Segment& code,
                        x86::Segment& stack) {
  using enum x86::Vector;
  const int rpl = code.selector & 3;
  if ((selector & ~3U) == 0) {
    const bool allowed =
        context.system.long_mode_active() && code.long_mode && rpl != 3 && (selector & 3) == rpl;
    if (!allowed) return Step::general_protection();
    constexpr std::uint8_t kData = 3;
    stack = x86::flat_segment(selector, kData, static_cast<std::uint8_t>(rpl), false);
    return Step::ok();
  }
  std::optional<Descriptor> d;
  VMM_STEP(read_descriptor(context, selector, d));
  if (!d || (selector & 3) != rpl || !d->is_code_or_data() || !d->is_writable() ||
      d->dpl() != rpl) {
    return refused(kGeneralProtection, selector);
  }
  if (!d->is_present()) return refused(kStackFault, selector);
  VMM_STEP(mark_accessed(context, selector, *d));
  stack = x86::segment_of(selector, d->value);
  stack.type |= 1;
  return Step::ok();
}

bool is_within(const Context& context, const x86::Segment& code, std::uint64_t rip) noexcept {
  if (context.system.long_mode_active() && code.long_mode) {
    return is_canonical_in(context.paging, Gva(rip));
  }
  return rip <= code.limit;
}

// What code of less privilege must not keep.
void drop_data_segments(x86::SystemRegisters& system, int cpl) noexcept {
  for (x86::Segment* const s : {&system.ds, &system.es, &system.fs, &system.gs}) {
    const bool is_code = (s->type & 8) != 0;
    const bool is_conforming = is_code && (s->type & 4) != 0;
    if (s->unusable || is_conforming || s->dpl >= cpl) continue;
    *s = {};
    s->unusable = true;
    s->present = false;
  }
}

Result<Step> go_back(Context& context, Return& back) {
  VMM_STEP(read_stack(context, 0, back.width, std::span(back.inner).first(back.items)));
  const bool is_interrupt = back.items == 3;
  if (is_interrupt && (back.flags() & kFlagVm) != 0 && context.cpl() == 0 &&
      !context.system.long_mode_active()) {
    return Step::cannot("returns to virtual-8086 mode are not supported");
  }
  x86::Segment code;
  VMM_STEP(load_code(context, back.cs(), code));
  const int cpl = back.cs() & 3;
  const bool outer = cpl > context.cpl();
  const bool pops_stack = outer || (is_interrupt && context.system.code_is_64bit());
  std::uint64_t popped = std::uint64_t{back.items} * back.width + back.released;
  x86::Segment stack = context.system.ss;
  if (pops_stack) {
    VMM_STEP(read_stack(context, popped, back.width, back.outer));
    VMM_STEP(load_stack(context, back.ss(), code, stack));
  }
  if (!is_within(context, code, back.rip())) return Step::general_protection();

  std::uint64_t& rsp = context.registers.gpr[x86::kRsp];
  const std::uint64_t mask = stack_mask(context, pops_stack ? code : context.system.cs, stack);
  // The outer stack's parameters are released as well.
  const std::uint64_t top = pops_stack ? back.outer[0] + (outer ? back.released : 0) : rsp + popped;
  rsp = (rsp & ~mask & 0xffff'ffff) | (top & mask);
  context.registers.rip = back.rip();
  context.system.cs = code;
  context.system.ss = stack;
  if (outer) drop_data_segments(context.system, cpl);
  VMM_TRY(context.cpu().set_system_registers(context.system));
  return Step::jump();
}

// The flags that an IRET at this privilege may change.
std::uint64_t loaded_flags(int cpl, std::uint64_t now, unsigned width) noexcept {
  std::uint64_t flags = kFlagsOfAll;
  if (width > 2) flags |= kFlagsOfWide;
  if (static_cast<std::uint64_t>(cpl) <= (now & x86::kFlagIopl) >> 12) flags |= x86::kFlagIf;
  if (cpl == 0) flags |= x86::kFlagIopl | (width > 2 ? kVirtualFlags : 0);
  return flags;
}

bool is_served(const Context& context) noexcept {
  return context.protected_mode() && (context.registers.rflags & kFlagVm) == 0;
}

}  // namespace

Result<Step> interrupt_return_rule(Context& context, const Instruction& instruction) {
  if (!is_served(context)) return Step::cannot("IRET is finished in protected mode only");
  if ((context.registers.rflags & kFlagNt) != 0) {
    if (context.system.long_mode_active()) return Step::general_protection();
    return Step::cannot("returns to another task are not supported");
  }
  Return back{.width = instruction.info().operand_width / 8U, .items = 3};
  const int cpl = context.cpl();  // that of before
  Step step = VMM_TRY(go_back(context, back));
  if (step.kind != Step::Kind::kJump) return step;
  std::uint64_t& flags = context.registers.rflags;
  const std::uint64_t loaded = loaded_flags(cpl, flags, back.width);
  flags = (flags & ~loaded & ~x86::kFlagRf) | (back.flags() & loaded) | 2;
  VMM_TRY(context.cpu().end_nmi_blocking());
  return step;
}

Result<Step> far_return_rule(Context& context, const Instruction& instruction) {
  if (instruction.info().meta.branch_type != ZYDIS_BRANCH_TYPE_FAR || !is_served(context)) {
    return Step::cannot("near returns, and those of real mode, are left to KVM");
  }
  Return back{.width = instruction.info().operand_width / 8U};
  const auto visible = instruction.visible();
  if (!visible.empty()) back.released = visible[0].imm.value.u & 0xffff;
  Step step = VMM_TRY(go_back(context, back));
  if (step.kind == Step::Kind::kJump) context.registers.rflags &= ~x86::kFlagRf;
  return step;
}

}  // namespace vmm::completion

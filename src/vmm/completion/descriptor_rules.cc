#include "vmm/completion/descriptor_rules.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/le.h"
#include "vmm/completion/data_access.h"
#include "vmm/completion/descriptor.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kFlagVm = 1ULL << 17;

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

}  // namespace vmm::completion

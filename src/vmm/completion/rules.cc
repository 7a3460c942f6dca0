#include "vmm/completion/rules.h"

#include <array>
#include <cstring>
#include <span>

#include "base/le.h"
#include "vmm/completion/data_access.h"
#include "vmm/completion/descriptor.h"
#include "vmm/completion/descriptor_rules.h"
#include "vmm/completion/far_return.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/xsave_rules.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::completion {
namespace {

using Rule = Result<Step> (*)(Context&, const Instruction&);

constexpr std::uint64_t kFlagOf = 1ULL << 11;
constexpr std::uint64_t kFlagVm = 1ULL << 17;

constexpr std::uint64_t kCr4Tsd = 1ULL << 2;
constexpr std::uint64_t kCr4Pcide = 1ULL << 17;
constexpr std::uint64_t kCr4Fsgsbase = 1ULL << 16;

std::uint64_t low_half(const Context& context, x86::Gpr index) noexcept {
  return context.registers.gpr[index] & 0xffffffff;
}

void set_edx_eax(Context& context, std::uint64_t value) noexcept {
  context.registers.gpr[x86::kRax] = value & 0xffffffff;
  context.registers.gpr[x86::kRdx] = value >> 32;
}

Result<Step> nothing_to_do(Context&, const Instruction&) { return Step::ok(); }
Result<Step> undefined(Context&, const Instruction&) { return Step::undefined(); }

// For instructions that do nothing here but are the supervisor's.
Result<Step> supervisor_nothing(Context& context, const Instruction&) {
  return context.cpl() == 0 ? Step::ok() : Step::general_protection();
}

// Interrupts (SDM volume 2, INT n/INTO/INT3/INT1).

Result<Step> int3(Context&, const Instruction&) {
  return Step::trap({static_cast<std::uint8_t>(x86::Vector::kBreakpoint)});
}

Result<Step> int1(Context&, const Instruction&) {
  return Step::trap({static_cast<std::uint8_t>(x86::Vector::kDebug)});
}

Result<Step> into(Context& context, const Instruction&) {
  if ((context.registers.rflags & kFlagOf) == 0) return Step::ok();
  return Step::trap({static_cast<std::uint8_t>(x86::Vector::kOverflow)});
}

// What a software interrupt needs: a gate of its privilege (SDM volume 3, 6.12.1.2) that is there,
// and leads to a segment that is. Otherwise the instruction faults, to be tried again: found out
// during delivery, it would be over.
Result<Step> check_gate(const Context& context, std::uint8_t vector) {
  const std::uint32_t error_code = vector * 8U + 2;
  const Step refused = Step::fault(x86::Vector::kGeneralProtection, error_code);
  const std::uint32_t size = context.system.long_mode_active() ? 16 : 8;
  if (std::uint32_t{vector} * size + size - 1 > context.system.idt.limit) return refused;
  PagingContext paging = context.paging;
  paging.implicit_supervisor = true;
  std::array<std::byte, 8> gate{};
  const Gva at(context.system.idt.base + std::uint64_t{vector} * size);
  const VirtualAccess access = read_virtual(context.memory(), paging, at, gate);
  if (access.outcome == VirtualAccess::Outcome::kFault) {
    return Step::page_fault(access.walk.address.value, access.walk.error_code);
  }
  if (!access) return Step::cannot("the IDT is not in RAM");
  const int dpl = (std::to_integer<int>(gate[5]) >> 5) & 3;
  if (dpl < context.cpl()) return refused;
  if ((gate[5] & std::byte{0x80}) == std::byte{0}) {
    return Step::fault(x86::Vector::kSegmentNotPresent, error_code);
  }
  return segment_is_there(context,
                          static_cast<std::uint16_t>(load_le(std::span(gate).subspan(2, 2))));
}

Result<Step> software_interrupt(Context& context, const Instruction& instruction) {
  const auto vector = static_cast<std::uint8_t>(instruction.info().raw.imm[0].value.u & 0xff);
  if ((context.registers.rflags & kFlagVm) != 0) {
    return Step::cannot("software interrupts of virtual-8086 mode are not supported");
  }
  if (context.protected_mode()) VMM_STEP(check_gate(context, vector));
  Event event{vector};
  event.software_interrupt = true;
  return Step::trap(event);
}

// SMAP (SDM volume 2, CLAC/STAC).

Result<Step> set_ac(Context& context, bool on) {
  if (context.cpl() != 0) return Step::undefined();
  context.registers.rflags =
      on ? context.registers.rflags | x86::kFlagAc : context.registers.rflags & ~x86::kFlagAc;
  return Step::ok();
}
Result<Step> clac(Context& context, const Instruction&) { return set_ac(context, false); }
Result<Step> stac(Context& context, const Instruction&) { return set_ac(context, true); }

// FPU.

// x87 exceptions that are flagged and not masked: FWAIT is where they are raised.
Result<Step> fwait(Context& context, const Instruction&) {
  if (context.cr0(x86::kCr0Mp) && context.cr0(x86::kCr0Ts)) {
    return Step::fault(x86::Vector::kDeviceNotAvailable);
  }
  const x86::XsaveArea& image = *VMM_TRY(context.xsave());
  const auto control = xsave_field<std::uint16_t>(image, kXsaveFcw);
  const auto status = xsave_field<std::uint16_t>(image, kXsaveFcw + 2);
  const bool in_use = (xsave_field<std::uint64_t>(image, kXsaveXstateBv) & kFeatureX87) != 0;
  if (in_use && (status & ~control & 0x3f) != 0) return Step::fault(x86::Vector::kX87Error);
  return Step::ok();
}

Result<Step> xgetbv(Context& context, const Instruction&) {
  if (!context.cr4(x86::kCr4Osxsave)) return Step::undefined();
  const std::uint64_t index = low_half(context, x86::kRcx);
  if (index > 1) return Step::general_protection();
  std::uint64_t value = VMM_TRY(context.xcr0());
  if (index == 1) {
    // XCR0 & XINUSE.
    value &= xsave_field<std::uint64_t>(*VMM_TRY(context.xsave()), kXsaveXstateBv);
  }
  set_edx_eax(context, value);
  return Step::ok();
}

Result<Step> xsetbv(Context& context, const Instruction&) {
  if (!context.cr4(x86::kCr4Osxsave)) return Step::undefined();
  if (context.cpl() != 0 || low_half(context, x86::kRcx) != 0) return Step::general_protection();
  const std::uint64_t value = context.registers.gpr[x86::kRdx] << 32 | low_half(context, x86::kRax);
  // SDM volume 1, 13.3: x87 always; AVX needs SSE; AVX-512 is all or nothing and needs AVX.
  const bool avx = (value & kFeatureAvx) != 0;
  const std::uint64_t avx512 = value & kFeatureAvx512;
  if ((value & kFeatureX87) == 0 || (avx && (value & kFeatureSse) == 0) ||
      (avx512 != 0 && (avx512 != kFeatureAvx512 || !avx))) {
    return Step::general_protection();
  }
  return VMM_TRY(context.cpu().set_xcr0(value)) ? Step::ok() : Step::general_protection();
}

Result<Step> rdpkru(Context& context, const Instruction&) {
  if (!context.cr4(x86::kCr4Pke)) return Step::undefined();
  if (low_half(context, x86::kRcx) != 0) return Step::general_protection();
  set_edx_eax(context, context.paging.pkru);
  return Step::ok();
}

Result<Step> wrpkru(Context& context, const Instruction&) {
  if (!context.cr4(x86::kCr4Pke)) return Step::undefined();
  if (low_half(context, x86::kRcx) != 0 || low_half(context, x86::kRdx) != 0) {
    return Step::general_protection();
  }
  x86::XsaveArea& image = *VMM_TRY(context.xsave());
  const auto& component = context.xsave_layout().components[kComponentPkru];
  set_xsave_field(image, component.offset,
                  static_cast<std::uint32_t>(low_half(context, x86::kRax)));
  set_xsave_field(image, kXsaveXstateBv,
                  xsave_field<std::uint64_t>(image, kXsaveXstateBv) | 1ULL << kComponentPkru);
  context.mark_xsave_changed();
  return Step::ok();
}

// Caches and translations.

// The address of the memory operand is translated, and faults as a read does; nothing is copied.
Result<Step> translate_only(Context& context, const Instruction& instruction) {
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr) return Step::cannot("the instruction has no single memory operand");
  LinearOperand linear;
  const Step resolved =
      resolve_operand(context, instruction, *operand, 1, Direction::kRead, linear);
  if (!resolved.done()) return resolved;
  DataAccess access;
  return DataAccess::translate(context, linear, Direction::kRead, access);
}

Result<Step> invpcid(Context& context, const Instruction& instruction) {
  if (context.cpl() != 0) return Step::general_protection();
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr) return Step::cannot("the instruction has no single memory operand");
  const std::uint64_t type = read_gpr(context.registers, instruction.visible()[0].reg.value);
  LinearOperand linear;
  const Step resolved =
      resolve_operand(context, instruction, *operand, 16, Direction::kRead, linear);
  if (!resolved.done()) return resolved;
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, linear, Direction::kRead, access));
  std::array<std::byte, 16> bytes{};
  VMM_TRY(access.gather(context, bytes));
  std::array<std::uint64_t, 2> descriptor{};  // PCID, address
  std::memcpy(descriptor.data(), bytes.data(), bytes.size());
  if (type > 3 || (descriptor[0] & ~0xfffULL) != 0) return Step::general_protection();
  if (type <= 1 && descriptor[0] != 0 && !context.cr4(kCr4Pcide)) {
    return Step::general_protection();
  }
  // More than was asked for is always allowed (SDM volume 3, 4.10.4.1).
  VMM_TRY(context.cpu().flush_tlb());
  return Step::ok();
}

// Counters and identities.

Result<Step> rdpid(Context& context, const Instruction& instruction) {
  const auto value = VMM_TRY(context.cpu().msr(x86::kMsrTscAux));
  write_gpr(context.registers, instruction.visible()[0].reg.value, value.value_or(0) & 0xffffffff);
  return Step::ok();
}

bool time_stamp_disabled(const Context& context) noexcept {
  return context.cr4(kCr4Tsd) && context.protected_mode() && context.cpl() != 0;
}

Result<Step> rdtsc(Context& context, const Instruction& instruction) {
  if (time_stamp_disabled(context)) return Step::general_protection();
  set_edx_eax(context, VMM_TRY(context.cpu().msr(x86::kMsrTsc)).value_or(0));
  if (instruction.mnemonic() == ZYDIS_MNEMONIC_RDTSCP) {
    context.registers.gpr[x86::kRcx] =
        VMM_TRY(context.cpu().msr(x86::kMsrTscAux)).value_or(0) & 0xffffffff;
  }
  return Step::ok();
}

// AMD APM volume 3: unsupported indices read as 0.
Result<Step> rdpru(Context& context, const Instruction&) {
  if (time_stamp_disabled(context)) return Step::general_protection();
  const std::uint64_t index = low_half(context, x86::kRcx);
  std::uint64_t value = 0;
  if (index <= 1) {
    value = VMM_TRY(context.cpu().msr(index == 0 ? x86::kMsrMperf : x86::kMsrAperf)).value_or(0);
  }
  set_edx_eax(context, value);
  return Step::ok();
}

// Segment bases.

Result<Step> segment_base(Context& context, const Instruction& instruction) {
  if (!context.system.code_is_64bit() || !context.cr4(kCr4Fsgsbase)) return Step::undefined();
  const ZydisMnemonic m = instruction.mnemonic();
  const ZydisRegister which = instruction.visible()[0].reg.value;
  const bool is_fs = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE;
  x86::Segment& segment = is_fs ? context.system.fs : context.system.gs;
  if (m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE) {
    write_gpr(context.registers, which, segment.base);
    return Step::ok();
  }
  const std::uint64_t base = read_gpr(context.registers, which);
  if (!is_canonical_in(context.paging, Gva(base))) return Step::general_protection();
  segment.base = base;
  VMM_TRY(context.cpu().set_system_registers(context.system));
  return Step::ok();
}

Result<Step> swapgs(Context& context, const Instruction&) {
  if (!context.system.code_is_64bit()) return Step::undefined();
  if (context.cpl() != 0) return Step::general_protection();
  const auto other = VMM_TRY(context.cpu().msr(x86::kMsrKernelGsBase));
  if (!other) return Step::cannot("KVM has no KERNEL_GS_BASE to swap with");
  if (!VMM_TRY(context.cpu().set_msr(x86::kMsrKernelGsBase, context.system.gs.base))) {
    return Step::cannot("KVM refuses a KERNEL_GS_BASE that the guest's GS had");
  }
  context.system.gs.base = *other;
  VMM_TRY(context.cpu().set_system_registers(context.system));
  return Step::ok();
}

// Waiting: a guest that waits for a store is woken at once, which these instructions allow.

Result<Step> umwait(Context& context, const Instruction&) {
  if (time_stamp_disabled(context)) return Step::general_protection();
  context.registers.rflags &= ~kStatusFlags;  // CF = 0: the deadline did not pass
  return Step::ok();
}

// Whole cache lines.

Result<Step> store_line(Context& context, const LinearOperand& linear,
                        std::span<const std::byte> bytes) {
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, linear, Direction::kWrite, access));
  VMM_TRY(access.scatter(context, bytes));
  return Step::ok();
}

constexpr std::uint32_t kLine = 64;

std::uint64_t address_mask(const Instruction& instruction) noexcept {
  const unsigned width = instruction.info().address_width;
  return width >= 64 ? ~0ULL : (1ULL << width) - 1;
}

Result<Step> movdir64b(Context& context, const Instruction& instruction) {
  if (instruction.visible().size() < 2) return Step::cannot("MOVDIR64B without operands");
  const ZydisDecodedOperand& source = instruction.visible()[1];
  if (source.type != ZYDIS_OPERAND_TYPE_MEMORY) return Step::cannot("MOVDIR64B without memory");
  LinearOperand from;
  Step step = resolve_operand(context, instruction, source, kLine, Direction::kRead, from);
  if (!step.done()) return step;
  LinearOperand to;
  const ZydisDecodedOperand& target = instruction.visible()[0];
  const std::uint64_t offset = target.type == ZYDIS_OPERAND_TYPE_MEMORY
                                   ? read_gpr(context.registers, target.mem.base)
                                   : read_gpr(context.registers, target.reg.value);
  step = resolve_register(context, ZYDIS_REGISTER_ES, offset & address_mask(instruction), kLine,
                          Direction::kWrite, to);
  if (!step.done()) return step;
  if (to.address % kLine != 0) return Step::general_protection();
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, from, Direction::kRead, access));
  std::array<std::byte, kLine> bytes{};
  VMM_TRY(access.gather(context, bytes));
  return store_line(context, to, bytes);
}

Result<Step> clzero(Context& context, const Instruction& instruction) {
  LinearOperand to;
  const std::uint64_t address =
      context.registers.gpr[x86::kRax] & address_mask(instruction) & ~std::uint64_t{kLine - 1};
  const Step step =
      resolve_register(context, ZYDIS_REGISTER_DS, address, kLine, Direction::kWrite, to);
  if (!step.done()) return step;
  const std::array<std::byte, kLine> zeroes{};
  return store_line(context, to, zeroes);
}

struct Entry {
  ZydisMnemonic mnemonic;
  Rule rule;
};

// Few enough for a scan; the hottest first.
constexpr Entry kRules[] = {
    {ZYDIS_MNEMONIC_STAC, stac},
    {ZYDIS_MNEMONIC_CLAC, clac},
    {ZYDIS_MNEMONIC_FWAIT, fwait},
    {ZYDIS_MNEMONIC_VERW, verify_segment_rule},
    {ZYDIS_MNEMONIC_VERR, verify_segment_rule},
    {ZYDIS_MNEMONIC_LAR, load_access_rights_rule},
    {ZYDIS_MNEMONIC_LSL, load_limit_rule},
    {ZYDIS_MNEMONIC_INT3, int3},
    {ZYDIS_MNEMONIC_XSAVES, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVES64, xsave_rule},
    {ZYDIS_MNEMONIC_XRSTORS, xrstor_rule},
    {ZYDIS_MNEMONIC_XRSTORS64, xrstor_rule},
    {ZYDIS_MNEMONIC_XSAVE, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVE64, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVEOPT, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVEOPT64, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVEC, xsave_rule},
    {ZYDIS_MNEMONIC_XSAVEC64, xsave_rule},
    {ZYDIS_MNEMONIC_XRSTOR, xrstor_rule},
    {ZYDIS_MNEMONIC_XRSTOR64, xrstor_rule},
    {ZYDIS_MNEMONIC_FXSAVE, fxsave_rule},
    {ZYDIS_MNEMONIC_FXSAVE64, fxsave_rule},
    {ZYDIS_MNEMONIC_FXRSTOR, fxrstor_rule},
    {ZYDIS_MNEMONIC_FXRSTOR64, fxrstor_rule},
    {ZYDIS_MNEMONIC_LDMXCSR, ldmxcsr_rule},
    {ZYDIS_MNEMONIC_VLDMXCSR, ldmxcsr_rule},
    {ZYDIS_MNEMONIC_STMXCSR, stmxcsr_rule},
    {ZYDIS_MNEMONIC_VSTMXCSR, stmxcsr_rule},
    {ZYDIS_MNEMONIC_INVPCID, invpcid},
    {ZYDIS_MNEMONIC_SWAPGS, swapgs},
    {ZYDIS_MNEMONIC_RDFSBASE, segment_base},
    {ZYDIS_MNEMONIC_RDGSBASE, segment_base},
    {ZYDIS_MNEMONIC_WRFSBASE, segment_base},
    {ZYDIS_MNEMONIC_WRGSBASE, segment_base},
    {ZYDIS_MNEMONIC_XGETBV, xgetbv},
    {ZYDIS_MNEMONIC_XSETBV, xsetbv},
    {ZYDIS_MNEMONIC_RDPKRU, rdpkru},
    {ZYDIS_MNEMONIC_WRPKRU, wrpkru},
    {ZYDIS_MNEMONIC_INT, software_interrupt},
    {ZYDIS_MNEMONIC_IRET, interrupt_return_rule},
    {ZYDIS_MNEMONIC_IRETD, interrupt_return_rule},
    {ZYDIS_MNEMONIC_IRETQ, interrupt_return_rule},
    {ZYDIS_MNEMONIC_RET, far_return_rule},
    {ZYDIS_MNEMONIC_INT1, int1},
    {ZYDIS_MNEMONIC_INTO, into},
    {ZYDIS_MNEMONIC_UD0, undefined},
    {ZYDIS_MNEMONIC_UD1, undefined},
    {ZYDIS_MNEMONIC_UD2, undefined},
    {ZYDIS_MNEMONIC_CLFLUSH, translate_only},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, translate_only},
    {ZYDIS_MNEMONIC_CLWB, translate_only},
    {ZYDIS_MNEMONIC_CLDEMOTE, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCH, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHNTA, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHT0, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHT1, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHT2, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHW, nothing_to_do},
    {ZYDIS_MNEMONIC_PREFETCHWT1, nothing_to_do},
    {ZYDIS_MNEMONIC_LFENCE, nothing_to_do},
    {ZYDIS_MNEMONIC_MFENCE, nothing_to_do},
    {ZYDIS_MNEMONIC_SFENCE, nothing_to_do},
    {ZYDIS_MNEMONIC_SERIALIZE, nothing_to_do},
    {ZYDIS_MNEMONIC_PAUSE, nothing_to_do},
    {ZYDIS_MNEMONIC_NOP, nothing_to_do},
    {ZYDIS_MNEMONIC_ENDBR32, nothing_to_do},
    {ZYDIS_MNEMONIC_ENDBR64, nothing_to_do},
    {ZYDIS_MNEMONIC_RDSSPD, nothing_to_do},  // a NOP while shadow stacks are off
    {ZYDIS_MNEMONIC_RDSSPQ, nothing_to_do},
    {ZYDIS_MNEMONIC_WBINVD, supervisor_nothing},
    {ZYDIS_MNEMONIC_INVD, supervisor_nothing},
    {ZYDIS_MNEMONIC_MONITOR, supervisor_nothing},
    {ZYDIS_MNEMONIC_MWAIT, supervisor_nothing},
    {ZYDIS_MNEMONIC_MONITORX, nothing_to_do},
    {ZYDIS_MNEMONIC_MWAITX, nothing_to_do},
    {ZYDIS_MNEMONIC_UMONITOR, nothing_to_do},
    {ZYDIS_MNEMONIC_UMWAIT, umwait},
    {ZYDIS_MNEMONIC_TPAUSE, umwait},
    {ZYDIS_MNEMONIC_RDPID, rdpid},
    {ZYDIS_MNEMONIC_RDTSC, rdtsc},
    {ZYDIS_MNEMONIC_RDTSCP, rdtsc},
    {ZYDIS_MNEMONIC_RDPRU, rdpru},
    {ZYDIS_MNEMONIC_MOVDIR64B, movdir64b},
    {ZYDIS_MNEMONIC_CLZERO, clzero},
};

}  // namespace

Result<std::optional<Step>> apply_rule(Context& context, const Instruction& instruction) {
  for (const Entry& entry : kRules) {
    if (entry.mnemonic == instruction.mnemonic()) {
      return std::optional<Step>(VMM_TRY(entry.rule(context, instruction)));
    }
  }
  return std::optional<Step>();
}

}  // namespace vmm::completion

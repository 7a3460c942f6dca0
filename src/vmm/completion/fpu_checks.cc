#include "vmm/completion/fpu_checks.h"

#include "vmm/completion/xsave_layout.h"
#include "vmm/completion/zydis_library.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kFlagVm = 1ULL << 17;

}  // namespace

FpuUse fpu_use(const Instruction& instruction) noexcept {
  FpuUse use;
  bool vector = false;
  for (const ZydisDecodedOperand& operand : instruction.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (static_cast<int>(zydis().register_class(operand.reg.value))) {
      case ZYDIS_REGCLASS_X87:
        use.x87 = true;
        break;
      case ZYDIS_REGCLASS_MMX:
        use.mmx = true;
        break;
      case ZYDIS_REGCLASS_XMM:
      case ZYDIS_REGCLASS_YMM:
      case ZYDIS_REGCLASS_ZMM:
      case ZYDIS_REGCLASS_MASK:
        vector = true;
        break;
      default:
        if (operand.reg.value == ZYDIS_REGISTER_MXCSR) vector = true;
        if (operand.reg.value == ZYDIS_REGISTER_X87CONTROL ||
            operand.reg.value == ZYDIS_REGISTER_X87STATUS ||
            operand.reg.value == ZYDIS_REGISTER_X87TAG) {
          use.x87 = true;
        }
        break;
    }
  }
  const auto& info = instruction.info();
  if (info.meta.category == ZYDIS_CATEGORY_X87_ALU || info.meta.category == ZYDIS_CATEGORY_FCMOV) {
    use.x87 = true;
  }
  if (info.meta.category == ZYDIS_CATEGORY_MMX) use.mmx = true;  // EMMS names no register
  const bool evex = info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
  const bool mask = info.meta.category == ZYDIS_CATEGORY_KMASK;
  const bool legacy = info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
                      info.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW;
  // VZEROUPPER and VZEROALL name no register either.
  const bool zeroes =
      info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || info.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
  use.avx512 = vector && (evex || mask);
  use.avx = (vector && !legacy && !use.avx512) || zeroes;
  use.sse = vector && legacy;
  return use;
}

Result<Step> check_fpu(Context& context, const Instruction& instruction) {
  const FpuUse use = fpu_use(instruction);
  if (!use.any()) return Step::ok();
  if (use.avx || use.avx512) {
    if (!context.protected_mode() || (context.registers.rflags & kFlagVm) != 0 ||
        !context.cr4(x86::kCr4Osxsave)) {
      return Step::undefined();
    }
    const std::uint64_t needed = kFeatureSse | kFeatureAvx | (use.avx512 ? kFeatureAvx512 : 0);
    if ((VMM_TRY(context.xcr0()) & needed) != needed) return Step::undefined();
  }
  if (use.sse && (context.cr0(x86::kCr0Em) || !context.cr4(x86::kCr4Osfxsr))) {
    return Step::undefined();
  }
  if (use.mmx && context.cr0(x86::kCr0Em)) return Step::undefined();
  if (context.cr0(x86::kCr0Ts) || (use.x87 && context.cr0(x86::kCr0Em))) {
    return Step::fault(x86::Vector::kDeviceNotAvailable);
  }
  return Step::ok();
}

}  // namespace vmm::completion

#include "vmm/completion/native.h"

#include <fmt/format.h>

#include <Zydis/MetaInfo.h>
#include <algorithm>
#include <cstring>
#include <vector>

#include "vmm/completion/data_access.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/lanes.h"
#include "vmm/completion/rebase.h"
#include "vmm/completion/zydis_library.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kCr4Osxmmexcpt = 1ULL << 10;

// Computation and data movement. Not here: control flow, I/O, stack and string instructions,
// anything that names system state.
bool is_allowed_category(ZydisInstructionCategory category) noexcept {
  constexpr ZydisInstructionCategory kAllowed[] = {
      ZYDIS_CATEGORY_ADOX_ADCX,   ZYDIS_CATEGORY_AES,
      ZYDIS_CATEGORY_AVX,         ZYDIS_CATEGORY_AVX2,
      ZYDIS_CATEGORY_AVX512,      ZYDIS_CATEGORY_AVX512_BITALG,
      ZYDIS_CATEGORY_AVX512_VBMI, ZYDIS_CATEGORY_AVX512_VP2INTERSECT,
      ZYDIS_CATEGORY_BINARY,      ZYDIS_CATEGORY_BITBYTE,
      ZYDIS_CATEGORY_BLEND,       ZYDIS_CATEGORY_BMI1,
      ZYDIS_CATEGORY_BMI2,        ZYDIS_CATEGORY_BROADCAST,
      ZYDIS_CATEGORY_CMOV,        ZYDIS_CATEGORY_COMPRESS,
      ZYDIS_CATEGORY_CONFLICT,    ZYDIS_CATEGORY_CONVERT,
      ZYDIS_CATEGORY_DATAXFER,    ZYDIS_CATEGORY_EXPAND,
      ZYDIS_CATEGORY_FCMOV,       ZYDIS_CATEGORY_FMA4,
      ZYDIS_CATEGORY_FP16,        ZYDIS_CATEGORY_GFNI,
      ZYDIS_CATEGORY_IFMA,        ZYDIS_CATEGORY_KMASK,
      ZYDIS_CATEGORY_LOGICAL,     ZYDIS_CATEGORY_LOGICAL_FP,
      ZYDIS_CATEGORY_LZCNT,       ZYDIS_CATEGORY_MMX,
      ZYDIS_CATEGORY_MOVDIR,      ZYDIS_CATEGORY_PCLMULQDQ,
      ZYDIS_CATEGORY_RDRAND,      ZYDIS_CATEGORY_RDSEED,
      ZYDIS_CATEGORY_ROTATE,      ZYDIS_CATEGORY_SEMAPHORE,
      ZYDIS_CATEGORY_SETCC,       ZYDIS_CATEGORY_SHA,
      ZYDIS_CATEGORY_SHIFT,       ZYDIS_CATEGORY_SSE,
      ZYDIS_CATEGORY_STTNI,       ZYDIS_CATEGORY_TBM,
      ZYDIS_CATEGORY_VAES,        ZYDIS_CATEGORY_VBMI2,
      ZYDIS_CATEGORY_VFMA,        ZYDIS_CATEGORY_VPCLMULQDQ,
      ZYDIS_CATEGORY_X87_ALU,     ZYDIS_CATEGORY_XOP,
  };
  return std::find(std::begin(kAllowed), std::end(kAllowed), category) != std::end(kAllowed);
}

bool is_allowed_register(ZydisRegister which) noexcept {
  switch (static_cast<int>(zydis().register_class(which))) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_X87:
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
    case ZYDIS_REGCLASS_MASK:
    case ZYDIS_REGCLASS_FLAGS:
      return true;
    default:
      return which == ZYDIS_REGISTER_MXCSR || which == ZYDIS_REGISTER_X87CONTROL ||
             which == ZYDIS_REGISTER_X87STATUS || which == ZYDIS_REGISTER_X87TAG;
  }
}

// MASKMOVDQU and its kin store to [RDI] without naming it.
bool is_rdi_store(ZydisMnemonic mnemonic) noexcept {
  return mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU || mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU ||
         mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
}

// BT and its kin with a register offset reach outside of the operand that is named.
bool is_bit_string(const Instruction& instruction) noexcept {
  return instruction.info().meta.category == ZYDIS_CATEGORY_BITBYTE &&
         instruction.memory_operand() != nullptr &&
         (instruction.mnemonic() == ZYDIS_MNEMONIC_BT ||
          instruction.mnemonic() == ZYDIS_MNEMONIC_BTC ||
          instruction.mnemonic() == ZYDIS_MNEMONIC_BTR ||
          instruction.mnemonic() == ZYDIS_MNEMONIC_BTS) &&
         instruction.visible()[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

// Why an instruction may not run on behalf of a guest; empty: it may.
std::string refusal(const Instruction& instruction) {
  const auto& info = instruction.info();
  if (!is_allowed_category(info.meta.category) || info.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
      instruction.has(ZYDIS_ATTRIB_IS_PRIVILEGED)) {
    const char* const category = zydis().category_string(info.meta.category);
    return fmt::format(
        "there is no rule for it, and instructions of category {} are not run natively",
        category != nullptr ? category : "?");
  }
  if (instruction.memory_operand_count() > 1) return "it has two memory operands";
  if (is_bit_string(instruction)) return "its bit offset reaches outside of the operand";
  for (const ZydisDecodedOperand& operand : instruction.operands()) {
    if (operand.type == ZYDIS_OPERAND_TYPE_POINTER) return "it has a far pointer";
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && !is_allowed_register(operand.reg.value)) {
      return "it names a system register";
    }
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB) return "it gathers or scatters";
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM) return "it has an unusual memory operand";
    const bool named = operand.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    if (named ? !instruction.has(ZYDIS_ATTRIB_HAS_MODRM) : !is_rdi_store(info.mnemonic)) {
      return "its memory operand is implied";
    }
  }
  return {};
}

Direction direction_of(const ZydisDecodedOperand& operand) noexcept {
  const bool writes = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  const bool reads = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
  if (!writes) return Direction::kRead;
  return reads ? Direction::kReadWrite : Direction::kWrite;
}

// Replaces `old` by `next` in RAM if it is still there, as one atomic operation. Operands that
// cross a 16-byte boundary have no such operation: they are replaced in two halves of a race, as a
// bus lock that nobody else honours.
Result<bool> commit_atomically(const Context& context, Gpa gpa, std::span<const std::byte> old,
                               std::span<const std::byte> next) {
  const Gpa line = gpa.align_down(sizeof(Bytes16));
  const std::size_t at = gpa.offset_from(line);
  if (at + old.size() > sizeof(Bytes16)) {
    VMM_TRY(context.memory().write(gpa, next));
    return true;
  }
  for (int i = 0; i < 64; ++i) {
    Bytes16 seen{};
    VMM_TRY(context.memory().read(line, seen));
    if (!std::equal(old.begin(), old.end(), seen.begin() + static_cast<std::ptrdiff_t>(at))) {
      return false;
    }
    Bytes16 wanted = seen;
    std::copy(next.begin(), next.end(), wanted.begin() + static_cast<std::ptrdiff_t>(at));
    if (VMM_TRY(context.memory().compare_exchange(line, seen, wanted))) return true;
    // A neighbour changed, or the operand did: look again.
  }
  return false;
}

// One instruction on its way through the executor.
class NativeRun {
 public:
  NativeRun(Context& context, const Instruction& instruction) noexcept
      : context_(context),
        instruction_(instruction),
        operand_(instruction.memory_operand()),
        uses_fpu_(fpu_use(instruction).any()) {}

  Result<Step> prepare();
  // A done step: the results are in registers and memory.
  Result<Step> attempt();

 private:
  Result<Step> open_operand();
  void load_registers();
  Result<Step> raise(const JobException& exception);
  // False when another CPU changed the operand of an atomic instruction.
  Result<bool> store_operand();
  Result<void> store_registers();
  void point_at_guest(x86::XsaveArea& image) const;

  Context& context_;
  const Instruction& instruction_;
  const ZydisDecodedOperand* operand_;
  const bool uses_fpu_;
  Direction direction_ = Direction::kRead;
  DataAccess access_;
  RebasedCode code_;
  std::uint32_t address_ = 0;  // of the operand in the sandbox
  std::vector<std::byte> before_;
  std::vector<std::byte> bytes_;
  x86::XsaveArea image_;
  Job job_;
};

Result<Step> NativeRun::prepare() {
  VMM_STEP(check_fpu(context_, instruction_));
  if (operand_ != nullptr) VMM_STEP(open_operand());
  const auto code = rebase(instruction_, address_);
  if (!code) return Step::cannot("it has no equivalent in 64-bit code at another address");
  code_ = *code;
  return Step::ok();
}

Result<Step> NativeRun::open_operand() {
  direction_ = direction_of(*operand_);
  const std::uint32_t size = operand_->size / 8U;
  if (size == 0 || size > Executor::kMaxOperand) {
    return Step::cannot(fmt::format("its memory operand has {} bytes", size));
  }
  LinearOperand linear;
  const Step resolved =
      resolve_operand(context_, instruction_, *operand_, size, direction_, linear);
  if (!resolved.done()) return resolved;
  const auto touched = VMM_TRY(touched_bytes(context_, instruction_, *operand_));
  VMM_STEP(DataAccess::translate(context_, linear, direction_, access_, touched));
  job_.operand_offset = static_cast<std::uint32_t>(linear.address & 0xfff);
  address_ = context_.executor()->operand_address(job_.operand_offset);
  bytes_.assign(size, std::byte{0});
  return Step::ok();
}

void NativeRun::load_registers() {
  std::copy_n(code_.bytes.begin(), code_.size, job_.code.begin());
  job_.code_size = code_.size;
  job_.gpr = context_.registers.gpr;
  job_.rflags = context_.registers.rflags & kJobFlags;
  if (context_.alignment_checked()) job_.rflags |= x86::kFlagAc;
  if (is_rdi_store(instruction_.mnemonic())) job_.gpr[x86::kRdi] = address_;
}

Result<Step> NativeRun::attempt() {
  load_registers();
  if (uses_fpu_) {
    image_ = *VMM_TRY(context_.xsave());
    job_.xsave = &image_;
  }
  if (operand_ != nullptr && direction_ != Direction::kWrite) {
    VMM_TRY(access_.gather(context_, bytes_));
    before_ = bytes_;
  }
  job_.operand = bytes_;
  const auto exception = VMM_TRY(context_.executor()->run(job_));
  if (exception) return raise(*exception);
  if (operand_ != nullptr && direction_ != Direction::kRead) {
    if (!VMM_TRY(store_operand())) return Step::repeat();
  }
  VMM_TRY(store_registers());
  return Step::ok();
}

Result<Step> NativeRun::raise(const JobException& exception) {
  switch (exception.vector) {
    case static_cast<std::uint8_t>(x86::Vector::kDivideError):
    case static_cast<std::uint8_t>(x86::Vector::kInvalidOpcode):
    case static_cast<std::uint8_t>(x86::Vector::kX87Error):
      return Step::fault(static_cast<x86::Vector>(exception.vector));
    case static_cast<std::uint8_t>(x86::Vector::kGeneralProtection):
    case static_cast<std::uint8_t>(x86::Vector::kAlignmentCheck):
      return Step::fault(static_cast<x86::Vector>(exception.vector), 0);
    case static_cast<std::uint8_t>(x86::Vector::kSimdError): {
      // The flags in MXCSR say what happened.
      x86::XsaveArea& mine = *VMM_TRY(context_.xsave());
      set_xsave_field(mine, kXsaveMxcsr, xsave_field<std::uint32_t>(image_, kXsaveMxcsr));
      set_xsave_field(mine, kXsaveXstateBv,
                      xsave_field<std::uint64_t>(mine, kXsaveXstateBv) | kFeatureSse);
      context_.mark_xsave_changed();
      return context_.cr4(kCr4Osxmmexcpt) ? Step::fault(x86::Vector::kSimdError)
                                          : Step::undefined();
    }
    default:
      return Step::cannot(
          fmt::format("it raised exception {} where it ran natively", exception.vector));
  }
}

Result<bool> NativeRun::store_operand() {
  const auto gpa = access_.contiguous_ram();
  if (!is_atomic(instruction_) || !gpa) {
    VMM_TRY(access_.scatter(context_, bytes_));
    return true;
  }
  return commit_atomically(context_, *gpa, before_, bytes_);
}

// The x87 unit remembers where the last instruction and its operand were: those of the guest, not
// of the sandbox.
void NativeRun::point_at_guest(x86::XsaveArea& image) const {
  if (xsave_field<std::uint64_t>(image, kXsaveFip) == job_.code_address) {
    set_xsave_field(image, kXsaveFip, context_.registers.rip);
  }
  if (operand_ != nullptr && xsave_field<std::uint64_t>(image, kXsaveFdp) == address_) {
    set_xsave_field(image, kXsaveFdp, access_.linear().offset);
  }
}

Result<void> NativeRun::store_registers() {
  const std::uint64_t rdi = context_.registers.gpr[x86::kRdi];
  context_.registers.gpr = job_.gpr;
  if (is_rdi_store(instruction_.mnemonic())) context_.registers.gpr[x86::kRdi] = rdi;
  context_.registers.rflags =
      (context_.registers.rflags & ~kStatusFlags) | (job_.rflags & kStatusFlags);
  if (!uses_fpu_) return {};
  x86::XsaveArea& mine = *VMM_TRY(context_.xsave());
  if (image_ == mine) return {};  // it only read the state
  if (fpu_use(instruction_).x87) point_at_guest(image_);
  mine = image_;
  context_.mark_xsave_changed();
  return {};
}

}  // namespace

bool may_run_natively(const Instruction& instruction) { return refusal(instruction).empty(); }

bool is_atomic(const Instruction& instruction) noexcept {
  return instruction.has(ZYDIS_ATTRIB_HAS_LOCK) ||
         (instruction.mnemonic() == ZYDIS_MNEMONIC_XCHG && instruction.memory_operand() != nullptr);
}

Result<Step> run_natively(Context& context, const Instruction& instruction) {
  if (std::string why = refusal(instruction); !why.empty()) return Step::cannot(std::move(why));
  if (context.executor() == nullptr) return Step::cannot("there is nothing to run it on natively");
  NativeRun run(context, instruction);
  VMM_STEP(run.prepare());
  // Atomic instructions lose a race only when another CPU wins it. A guest that keeps its CPUs at
  // it goes back to its own code now and then.
  constexpr int kAttempts = 16;
  Step step;
  for (int i = 0; i < kAttempts; ++i) {
    step = VMM_TRY(run.attempt());
    if (step.kind != Step::Kind::kRepeat) break;
  }
  return step;
}

}  // namespace vmm::completion

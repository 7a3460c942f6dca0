#include "vmm/completion/completer.h"

#include <utility>

#include "vmm/completion/context.h"
#include "vmm/completion/fast_paths.h"
#include "vmm/completion/fetch.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/native.h"
#include "vmm/completion/report.h"
#include "vmm/completion/rules.h"
#include "vmm/completion/run_ahead.h"
#include "vmm/completion/zydis_library.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kDr6SingleStep = 1ULL << 14;  // BS

// One completion, from the bytes to the outcome.
class Completion {
 public:
  Completion(Context& context, const Completer::Options& options) noexcept
      : context_(context), before_(context.registers), options_(options) {}

  Result<Outcome> run(std::span<const std::uint8_t> bytes);

 private:
  // A done step has set instruction_.
  Step decode(std::span<const std::uint8_t> bytes);
  Result<Step> execute();
  Result<Outcome> finish(bool jumps);
  Result<Outcome> take_event(const Step& step);
  Outcome cannot(const std::string& reason);
  void step_over() noexcept;
  // Whether those behind it are worth a look: only computation with vectors comes in lines.
  Result<bool> may_run_ahead();
  // STI and MOV SS hold interrupts back for one instruction; this one was it.
  bool may_be_in_shadow() const;

  Context& context_;
  const x86::Registers before_;
  const Completer::Options& options_;
  std::optional<Instruction> instruction_;
  bool computed_ = false;  // it was neither a rule's nor KVM's
  std::string_view name_ = "fetch";
};

Step Completion::decode(std::span<const std::uint8_t> bytes) {
  const CodeSize size = code_size(context_.system);
  DecodeFailure why = DecodeFailure::kTooShort;
  if (!bytes.empty()) instruction_ = Instruction::decode(bytes, size, why);
  if (!instruction_ && why == DecodeFailure::kTooShort) {
    const Fetched fetched = fetch(context_);
    if (fetched.size == 0) return fetched.end;
    instruction_ = Instruction::decode(fetched.view(), size, why);
    if (!instruction_ && why == DecodeFailure::kTooShort && !fetched.end.done()) {
      return fetched.end;
    }
  }
  if (instruction_) {
    name_ = instruction_->mnemonic_text();
    return Step::ok();
  }
  name_ = "invalid";
  return Step::undefined();
}

Result<Step> Completion::execute() {
  if (auto step = VMM_TRY(apply_rule(context_, *instruction_))) return *std::move(step);
  computed_ = true;
  if (options_.fast_paths) {
    if (auto step = VMM_TRY(apply_fast_path(context_, *instruction_))) return *std::move(step);
  }
  return run_natively(context_, *instruction_);
}

void Completion::step_over() noexcept {
  const std::uint64_t next = before_.rip + instruction_->length();
  context_.registers.rip = context_.system.code_is_64bit() ? next : next & 0xffffffff;
  context_.registers.rflags &= ~x86::kFlagRf;
}

bool Completion::may_be_in_shadow() const {
  if ((before_.rflags & x86::kFlagIf) == 0) return false;
  // The shadow exists only right behind STI (0xfb), MOV SS (0x8e) and POP SS (0x17): without one of
  // these bytes there is none, and a false alarm costs only time.
  std::array<std::byte, 8> tail{};
  const std::uint64_t base = context_.system.code_is_64bit() ? 0 : context_.system.cs.base;
  const Gva from(base + before_.rip - tail.size());
  if (!read_virtual(context_.memory(), context_.paging, from, tail, AccessKind::kFetch)) {
    return true;
  }
  for (const std::byte b : tail) {
    if (b == std::byte{0x8e} || b == std::byte{0x17}) return true;
  }
  return tail.back() == std::byte{0xfb};
}

Result<bool> Completion::may_run_ahead() {
  if (!computed_ || options_.run_ahead == 0 || context_.executor() == nullptr) return false;
  if ((before_.rflags & x86::kFlagTf) != 0 || !fpu_use(*instruction_).any()) return false;
  return !VMM_TRY(context_.cpu().breakpoints_armed());
}

Result<Outcome> Completion::finish(bool jumps) {
  const bool shadow = may_be_in_shadow();
  const bool trap = (before_.rflags & x86::kFlagTf) != 0;
  if (!jumps) step_over();
  Finished finished{name_};
  if (VMM_TRY(may_run_ahead())) {
    finished.ahead = VMM_TRY(run_ahead(context_, options_.run_ahead));
  }
  VMM_TRY(context_.flush());
  VMM_TRY(context_.cpu().set_registers(context_.registers));
  if (shadow) VMM_TRY(context_.cpu().end_interrupt_shadow());
  if (trap) {
    Event event{static_cast<std::uint8_t>(x86::Vector::kDebug)};
    event.dr6 = kDr6SingleStep;
    VMM_TRY(context_.cpu().inject(event));
  }
  return Outcome(finished);
}

Result<Outcome> Completion::take_event(const Step& step) {
  if (step.kind == Step::Kind::kTrap) {
    step_over();
  } else {
    // Whatever a rule had begun is undone: a fault leaves no trace but RF in the saved flags.
    context_.registers = before_;
    context_.registers.rflags |= x86::kFlagRf;
  }
  VMM_TRY(context_.flush());
  VMM_TRY(context_.cpu().set_registers(context_.registers));
  VMM_TRY(context_.cpu().inject(step.event));
  return Outcome(Injected{name_, step.event.vector, step.event.software_interrupt});
}

Outcome Completion::cannot(const std::string& reason) {
  context_.registers = before_;
  return Cannot{reason, failure_report(context_, instruction_ ? &*instruction_ : nullptr, reason)};
}

Result<Outcome> Completion::run(std::span<const std::uint8_t> bytes) {
  Step step = decode(bytes);
  if (step.done()) step = VMM_TRY(execute());
  switch (step.kind) {
    case Step::Kind::kDone:
    case Step::Kind::kJump:
      return finish(step.kind == Step::Kind::kJump);
    case Step::Kind::kRepeat:
      return Outcome(Finished{name_});
    case Step::Kind::kEvent:
    case Step::Kind::kTrap:
      return take_event(step);
    case Step::Kind::kCannot:
      break;
  }
  return cannot(step.reason);
}

}  // namespace

Completer::Completer(const GuestMemory& memory, MmioBus& bus, Executor* executor, Options options)
    : memory_(memory), bus_(bus), executor_(executor), options_(std::move(options)) {}

Result<Outcome> Completer::complete(Cpu& cpu, std::span<const std::uint8_t> bytes) {
  if (const auto& library = load_zydis(); !library) return tl::unexpected<Error>(library.error());
  const Context::Surroundings surroundings{&memory_, &bus_, executor_, &options_.xsave_layout,
                                           options_.physical_bits};
  Context context = VMM_TRY(Context::load(cpu, surroundings));
  return Completion(context, options_).run(bytes);
}

}  // namespace vmm::completion

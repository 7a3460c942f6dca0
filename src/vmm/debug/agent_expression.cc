#include "vmm/debug/agent_expression.h"

#include <array>
#include <limits>

#include "base/le.h"

namespace vmm::debug {
namespace {

// Numbers of the instructions (gdbsupport/ax.def).
enum class Op : std::uint8_t {
  kAdd = 0x02,
  kSub = 0x03,
  kMul = 0x04,
  kDivSigned = 0x05,
  kDivUnsigned = 0x06,
  kRemSigned = 0x07,
  kRemUnsigned = 0x08,
  kLsh = 0x09,
  kRshSigned = 0x0a,
  kRshUnsigned = 0x0b,
  kLogNot = 0x0e,
  kBitAnd = 0x0f,
  kBitOr = 0x10,
  kBitXor = 0x11,
  kBitNot = 0x12,
  kEqual = 0x13,
  kLessSigned = 0x14,
  kLessUnsigned = 0x15,
  kExt = 0x16,
  kRef8 = 0x17,
  kRef16 = 0x18,
  kRef32 = 0x19,
  kRef64 = 0x1a,
  kIfGoto = 0x20,
  kGoto = 0x21,
  kConst8 = 0x22,
  kConst16 = 0x23,
  kConst32 = 0x24,
  kConst64 = 0x25,
  kReg = 0x26,
  kEnd = 0x27,
  kDup = 0x28,
  kPop = 0x29,
  kZeroExt = 0x2a,
  kSwap = 0x2b,
  kPick = 0x32,
  kRot = 0x33,
};

constexpr std::size_t kMostSteps = 100'000;  // conditions may have loops
constexpr std::size_t kMostValues = 100;

std::int64_t as_signed(std::uint64_t value) noexcept { return static_cast<std::int64_t>(value); }
std::uint64_t as_unsigned(std::int64_t value) noexcept { return static_cast<std::uint64_t>(value); }

std::uint64_t sign_extend(std::uint64_t value, unsigned bits) noexcept {
  if (bits >= 64) return value;
  const std::uint64_t sign = std::uint64_t{1} << (bits - 1);
  const std::uint64_t low = value & ((sign << 1) - 1);
  return (low ^ sign) - sign;
}

class Evaluation {
 public:
  Evaluation(std::span<const std::byte> code, const AgentContext& context)
      : code_(code), context_(context) {}

  Result<std::uint64_t> run() {
    for (std::size_t i = 0; i < kMostSteps; ++i) {
      const auto op = static_cast<Op>(VMM_TRY(operand(1)));
      if (op == Op::kEnd) return pop();
      VMM_TRY(execute(op));
    }
    return fail(ErrorCode::kBadConfig, "The condition does not end");
  }

 private:
  // Operands are big-endian.
  Result<std::uint64_t> operand(std::size_t size) {
    if (size > code_.size() - at_) {
      return fail(ErrorCode::kBadConfig, "The condition's code has no end");
    }
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value = value << 8 | std::to_integer<std::uint64_t>(code_[at_++]);
    }
    return value;
  }
  Result<void> push(std::uint64_t value) {
    if (depth_ == values_.size()) {
      return fail(ErrorCode::kBadConfig, "The condition needs too large a stack");
    }
    values_[depth_++] = value;
    return {};
  }
  Result<std::uint64_t> pop() {
    if (depth_ == 0) return fail(ErrorCode::kBadConfig, "The condition's stack is empty");
    return values_[--depth_];
  }
  Result<void> jump(std::uint64_t to) {
    if (to >= code_.size()) {
      return fail(ErrorCode::kBadConfig, "The condition jumps out of itself");
    }
    at_ = static_cast<std::size_t>(to);
    return {};
  }

  Result<void> execute(Op op);
  Result<bool> binary(Op op);
  Result<bool> unary(Op op);
  Result<bool> load(Op op);
  Result<bool> shuffle(Op op);
  Result<void> reference(std::size_t size);
  static Result<std::uint64_t> divide(Op op, std::uint64_t a, std::uint64_t b);

  std::span<const std::byte> code_;
  const AgentContext& context_;
  std::size_t at_ = 0;
  std::array<std::uint64_t, kMostValues> values_{};
  std::size_t depth_ = 0;
};

Result<std::uint64_t> Evaluation::divide(Op op, std::uint64_t a, std::uint64_t b) {
  if (b == 0) return fail(ErrorCode::kBadConfig, "The condition divides by zero");
  if (op == Op::kDivUnsigned) return a / b;
  if (op == Op::kRemUnsigned) return a % b;
  // The one quotient that has no room.
  if (as_signed(a) == std::numeric_limits<std::int64_t>::min() && as_signed(b) == -1) {
    return op == Op::kDivSigned ? a : std::uint64_t{0};
  }
  return as_unsigned(op == Op::kDivSigned ? as_signed(a) / as_signed(b)
                                          : as_signed(a) % as_signed(b));
}

// False when it is no instruction of this kind, as the next.
Result<bool> Evaluation::binary(Op op) {
  const auto known = static_cast<std::uint8_t>(op);
  const bool arithmetic = known >= static_cast<std::uint8_t>(Op::kAdd) &&
                          known <= static_cast<std::uint8_t>(Op::kRshUnsigned);
  const bool logical = op == Op::kBitAnd || op == Op::kBitOr || op == Op::kBitXor ||
                       op == Op::kEqual || op == Op::kLessSigned || op == Op::kLessUnsigned;
  if (!arithmetic && !logical) return false;
  const std::uint64_t b = VMM_TRY(pop());
  const std::uint64_t a = VMM_TRY(pop());
  std::uint64_t value = 0;
  if (op == Op::kAdd) value = a + b;
  if (op == Op::kSub) value = a - b;
  if (op == Op::kMul) value = a * b;
  if (op >= Op::kDivSigned && op <= Op::kRemUnsigned) value = VMM_TRY(divide(op, a, b));
  if (op == Op::kLsh) value = b < 64 ? a << b : 0;
  if (op == Op::kRshSigned) value = as_unsigned(as_signed(a) >> (b < 64 ? b : 63));
  if (op == Op::kRshUnsigned) value = b < 64 ? a >> b : 0;
  if (op == Op::kBitAnd) value = a & b;
  if (op == Op::kBitOr) value = a | b;
  if (op == Op::kBitXor) value = a ^ b;
  if (op == Op::kEqual) value = a == b ? 1 : 0;
  if (op == Op::kLessSigned) value = as_signed(a) < as_signed(b) ? 1 : 0;
  if (op == Op::kLessUnsigned) value = a < b ? 1 : 0;
  VMM_TRY(push(value));
  return true;
}

Result<bool> Evaluation::unary(Op op) {
  if (op != Op::kLogNot && op != Op::kBitNot && op != Op::kExt && op != Op::kZeroExt) return false;
  const bool sized = op == Op::kExt || op == Op::kZeroExt;
  const auto bits = sized ? static_cast<unsigned>(VMM_TRY(operand(1))) : 64U;
  if (bits == 0) return fail(ErrorCode::kBadConfig, "The condition extends nothing");
  const std::uint64_t a = VMM_TRY(pop());
  std::uint64_t value = a;
  if (op == Op::kLogNot) value = a == 0 ? 1 : 0;
  if (op == Op::kBitNot) value = ~a;
  if (op == Op::kExt) value = sign_extend(a, bits);
  if (op == Op::kZeroExt && bits < 64) value = a & ((std::uint64_t{1} << bits) - 1);
  VMM_TRY(push(value));
  return true;
}

Result<void> Evaluation::reference(std::size_t size) {
  const std::uint64_t address = VMM_TRY(pop());
  std::array<std::byte, 8> bytes{};
  const auto wanted = std::span(bytes).first(size);
  if (!context_.read_memory(address, wanted)) {
    return fail(ErrorCode::kOutOfRange, "The condition reads {:#x}, where nothing is", address);
  }
  return push(load_le(wanted));
}

Result<bool> Evaluation::load(Op op) {
  if (op >= Op::kRef8 && op <= Op::kRef64) {
    VMM_TRY(reference(std::size_t{1}
                      << (static_cast<unsigned>(op) - static_cast<unsigned>(Op::kRef8))));
    return true;
  }
  if (op >= Op::kConst8 && op <= Op::kConst64) {
    const std::size_t size = std::size_t{1}
                             << (static_cast<unsigned>(op) - static_cast<unsigned>(Op::kConst8));
    const std::uint64_t value = VMM_TRY(operand(size));
    VMM_TRY(push(value));
    return true;
  }
  if (op != Op::kReg) return false;
  const std::uint64_t number = VMM_TRY(operand(2));
  const auto value = context_.read_register(number);
  if (!value) {
    return fail(ErrorCode::kOutOfRange, "The condition needs register {}, which is none of 64 bits",
                number);
  }
  VMM_TRY(push(*value));
  return true;
}

Result<bool> Evaluation::shuffle(Op op) {
  if (op == Op::kPick || op == Op::kDup) {
    const std::uint64_t which = op == Op::kPick ? VMM_TRY(operand(1)) : 0;
    if (which >= depth_) return fail(ErrorCode::kBadConfig, "The condition's stack is empty");
    VMM_TRY(push(values_[depth_ - 1 - static_cast<std::size_t>(which)]));
    return true;
  }
  if (op == Op::kPop) {
    VMM_TRY(pop());
    return true;
  }
  if (op != Op::kSwap && op != Op::kRot) return false;
  const std::uint64_t c = VMM_TRY(pop());
  const std::uint64_t b = VMM_TRY(pop());
  if (op == Op::kSwap) {  // b c => c b
    VMM_TRY(push(c));
    VMM_TRY(push(b));
    return true;
  }
  const std::uint64_t a = VMM_TRY(pop());  // a b c => c a b
  VMM_TRY(push(c));
  VMM_TRY(push(a));
  VMM_TRY(push(b));
  return true;
}

Result<void> Evaluation::execute(Op op) {
  if (op == Op::kGoto || op == Op::kIfGoto) {
    const std::uint64_t to = VMM_TRY(operand(2));
    if (op == Op::kIfGoto && VMM_TRY(pop()) == 0) return {};
    return jump(to);
  }
  if (VMM_TRY(binary(op)) || VMM_TRY(unary(op)) || VMM_TRY(load(op)) || VMM_TRY(shuffle(op))) {
    return {};
  }
  return fail(ErrorCode::kBadConfig, "The condition has an instruction that is not known: {:#x}",
              static_cast<unsigned>(op));
}

}  // namespace

Result<std::uint64_t> evaluate(std::span<const std::byte> code, const AgentContext& context) {
  return Evaluation(code, context).run();
}

}  // namespace vmm::debug

// Multiplication and division.
#include <limits>

#include "vmm/interpreter/two_operands.h"

namespace vmm::interpreter {
namespace {

template <class T>
struct Doubled;
template <>
struct Doubled<std::uint8_t> {
  using U = std::uint16_t;
  using S = std::int16_t;
};
template <>
struct Doubled<std::uint16_t> {
  using U = std::uint32_t;
  using S = std::int32_t;
};
template <>
struct Doubled<std::uint32_t> {
  using U = std::uint64_t;
  using S = std::int64_t;
};
template <>
struct Doubled<std::uint64_t> {
  using U = unsigned __int128;
  using S = __int128;
};

// rDX:rAX, or AX for bytes.
template <class T>
typename Doubled<T>::U wide_accumulator(const Cpu& cpu) noexcept {
  using U = typename Doubled<T>::U;
  if constexpr (sizeof(T) == 1) return get<std::uint16_t>(cpu, x86::kRax * 8);
  return static_cast<U>(U{get<T>(cpu, x86::kRdx * 8)} << (sizeof(T) * 8) |
                        U{get<T>(cpu, x86::kRax * 8)});
}

template <class T>
void put_halves(Cpu& cpu, T low, T high) noexcept {
  if constexpr (sizeof(T) == 1) {
    put(cpu, x86::kRax * 8, static_cast<std::uint16_t>(low | high << 8));
  } else {
    put(cpu, x86::kRax * 8, low);
    put(cpu, x86::kRdx * 8, high);
  }
}

template <class T, bool in_memory>
bool operand(Cpu& cpu, const Insn& i, T& value) noexcept {
  if constexpr (in_memory) return load(cpu, address_of(cpu, i), value);
  value = get<T>(cpu, i.dst);
  return true;
}

template <class T, bool is_signed, bool in_memory>
Next multiply(Cpu& cpu, const Insn& i) noexcept {
  using U = typename Doubled<T>::U;
  using S = typename Doubled<T>::S;
  using Signed = std::make_signed_t<T>;
  T b{};
  if (!operand<T, in_memory>(cpu, i, b)) return missed(cpu);
  const T a = get<T>(cpu, x86::kRax * 8);
  U product{};
  bool spills = false;
  if constexpr (is_signed) {
    const S result = static_cast<S>(S{static_cast<Signed>(a)} * S{static_cast<Signed>(b)});
    product = static_cast<U>(result);
    spills = result != S{static_cast<Signed>(result)};
  } else {
    product = static_cast<U>(U{a} * U{b});
    spills = product >> (sizeof(T) * 8) != 0;
  }
  put_halves(cpu, static_cast<T>(product), static_cast<T>(product >> (sizeof(T) * 8)));
  // CF and OF; the others are undefined (SDM volume 2, MUL).
  constexpr Status kCarryAndOverflow = 0x101;
  cpu.status = static_cast<Status>(spills ? cpu.status | kCarryAndOverflow
                                          : cpu.status & ~kCarryAndOverflow);
  return Next::kOn;
}

// #DE is KVM's to raise.
template <class T, bool is_signed, bool in_memory>
Next divide(Cpu& cpu, const Insn& i) noexcept {
  using U = typename Doubled<T>::U;
  using S = typename Doubled<T>::S;
  using Signed = std::make_signed_t<T>;
  T b{};
  if (!operand<T, in_memory>(cpu, i, b)) return missed(cpu);
  if (b == 0) return cpu.leave_harmless();
  const U a = wide_accumulator<T>(cpu);
  if constexpr (is_signed) {
    const S dividend = static_cast<S>(a);
    const S divisor = S{static_cast<Signed>(b)};
    // The least of all divided by -1 overflows even here.
    if (divisor == -1 && a == U{1} << (sizeof(U) * 8 - 1)) return cpu.leave_harmless();
    const S quotient = static_cast<S>(dividend / divisor);
    if (quotient != S{static_cast<Signed>(quotient)}) return cpu.leave_harmless();
    put_halves(cpu, static_cast<T>(quotient), static_cast<T>(dividend % divisor));
  } else {
    const U quotient = static_cast<U>(a / b);
    if (quotient > std::numeric_limits<T>::max()) return cpu.leave_harmless();
    put_halves(cpu, static_cast<T>(quotient), static_cast<T>(a % b));
  }
  return Next::kOn;
}

template <bool is_signed>
Handler multiplication(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    return form.shape == Shape::kMem   ? multiply<T, is_signed, true>
           : form.shape == Shape::kReg ? multiply<T, is_signed, false>
                                       : nullptr;
  });
}

template <bool is_signed>
Handler division(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    return form.shape == Shape::kMem   ? divide<T, is_signed, true>
           : form.shape == Shape::kReg ? divide<T, is_signed, false>
                                       : nullptr;
  });
}

// IMUL with a destination, a source and an immediate.
template <class T, bool in_memory>
Next multiply_by_immediate(Cpu& cpu, const Insn& i) noexcept {
  T a{};
  if constexpr (in_memory) {
    if (!load(cpu, address_of(cpu, i), a)) return missed(cpu);
  } else {
    a = get<T>(cpu, i.src);
  }
  op::Imul::on(a, static_cast<T>(i.imm), cpu.status);
  put(cpu, i.dst, a);
  return Next::kOn;
}

Handler signed_multiplication(const completion::Instruction& instruction, const Form& form,
                              Insn& insn) {
  const auto operands = instruction.visible();
  if (operands.size() == 1) return multiplication<true>(form);
  if (operands.size() == 2) return scan<op::Imul>(form);
  insn.imm = operands[2].imm.value.u;
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    return form.shape == Shape::kRegMem   ? multiply_by_immediate<T, true>
           : form.shape == Shape::kRegReg ? multiply_by_immediate<T, false>
                                          : nullptr;
  });
}

}  // namespace

Handler choose_multiplication(const completion::Instruction& instruction, const Form& form,
                              Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_MUL:
      return multiplication<false>(form);
    case ZYDIS_MNEMONIC_IMUL:
      return signed_multiplication(instruction, form, insn);
    case ZYDIS_MNEMONIC_DIV:
      return division<false>(form);
    case ZYDIS_MNEMONIC_IDIV:
      return division<true>(form);
    default:
      return nullptr;
  }
}

}  // namespace vmm::interpreter

// Arithmetic, logic, shifts, bits, multiplication and division.
#include <limits>

#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"
#include "vmm/interpreter/operations.h"

namespace vmm::interpreter {
namespace {

template <class T>
op::Unaligned<T>* typed(std::byte* at) noexcept {
  return reinterpret_cast<op::Unaligned<T>*>(at);
}

Next missed(Cpu& cpu) noexcept { return cpu.leave(cpu.tlb.last_miss()); }

// ---- two operands

template <class Op, class T, Shape shape>
Next to_register(Cpu& cpu, const Insn& i) noexcept {
  T b{};
  if constexpr (shape == Shape::kRegReg) {
    b = get<T>(cpu, i.src);
  } else if constexpr (shape == Shape::kRegImm) {
    b = static_cast<T>(i.imm);
  } else if (!load(cpu, address_of(cpu, i), b)) {
    return missed(cpu);
  }
  T a = get<T>(cpu, i.dst);
  Op::on(a, b, cpu.status);
  if constexpr (Op::kWrites) put(cpu, i.dst, a);
  return Next::kOn;
}

template <class T, Shape shape>
T source(const Cpu& cpu, const Insn& i) noexcept {
  if constexpr (shape == Shape::kMemReg) return get<T>(cpu, i.src);
  return static_cast<T>(i.imm);
}

template <class Op, class T, Shape shape>
Next to_memory(Cpu& cpu, const Insn& i) noexcept {
  const T b = source<T, shape>(cpu, i);
  if constexpr (!Op::kWrites) {
    T a{};
    if (!load(cpu, address_of(cpu, i), a)) return missed(cpu);
    Op::on(a, b, cpu.status);
  } else {
    std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
    if (at == nullptr) return missed(cpu);
    T a = load_at<T>(at);
    Op::on(a, b, cpu.status);
    store_at(at, a);
  }
  return Next::kOn;
}

template <class Op, class T, Shape shape>
Next to_memory_locked(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  Op::template locked_on<T>(typed<T>(at), source<T, shape>(cpu, i), cpu.status);
  return Next::kOn;
}

template <class Op>
Handler binary(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    switch (form.shape) {
      case Shape::kRegReg:
        return to_register<Op, T, Shape::kRegReg>;
      case Shape::kRegImm:
        return to_register<Op, T, Shape::kRegImm>;
      case Shape::kRegMem:
        return to_register<Op, T, Shape::kRegMem>;
      case Shape::kMemReg:
        if constexpr (Op::kWrites) {
          if (form.lock) return to_memory_locked<Op, T, Shape::kMemReg>;
        }
        return to_memory<Op, T, Shape::kMemReg>;
      case Shape::kMemImm:
        if constexpr (Op::kWrites) {
          if (form.lock) return to_memory_locked<Op, T, Shape::kMemImm>;
        }
        return to_memory<Op, T, Shape::kMemImm>;
      case Shape::kReg:
      case Shape::kMem:
      case Shape::kOther:
        break;
    }
    return nullptr;
  });
}

// ---- bits of a string of bits: a register names any of them (SDM volume 2, BT)

template <class Op, class T, bool locked>
Next bit_in_memory(Cpu& cpu, const Insn& i) noexcept {
  using Signed = std::make_signed_t<T>;
  constexpr unsigned kBits = sizeof(T) * 8;
  const auto index = std::int64_t{static_cast<Signed>(get<T>(cpu, i.src))};
  const std::int64_t word =
      index >= 0 ? index / kBits : -((-index + kBits - 1) / std::int64_t{kBits});
  const auto bit = static_cast<T>(static_cast<std::uint64_t>(index) % kBits);
  const std::uint64_t address = address_of(cpu, i) + static_cast<std::uint64_t>(word) * sizeof(T);
  if constexpr (!Op::kWrites) {
    T a{};
    if (!load(cpu, address, a)) return missed(cpu);
    Op::on(a, bit, cpu.status);
  } else {
    std::byte* const at = place(cpu, address, sizeof(T));
    if (at == nullptr) return missed(cpu);
    if constexpr (locked) {
      Op::template locked_on<T>(typed<T>(at), bit, cpu.status);
    } else {
      T a = load_at<T>(at);
      Op::on(a, bit, cpu.status);
      store_at(at, a);
    }
  }
  return Next::kOn;
}

template <class Op>
Handler bit(const Form& form, Insn& insn) {
  // An immediate names a bit of the operand.
  if (form.shape == Shape::kRegImm || form.shape == Shape::kMemImm) insn.imm %= form.size * 8U;
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kMemReg) {
      if constexpr (Op::kWrites) {
        if (form.lock) return bit_in_memory<Op, T, true>;
      }
      return bit_in_memory<Op, T, false>;
    }
    if (form.shape == Shape::kRegReg) return to_register<Op, T, Shape::kRegReg>;
    if (form.shape == Shape::kRegImm) return to_register<Op, T, Shape::kRegImm>;
    if (form.shape != Shape::kMemImm) return nullptr;
    if constexpr (Op::kWrites) {
      if (form.lock) return to_memory_locked<Op, T, Shape::kMemImm>;
    }
    return to_memory<Op, T, Shape::kMemImm>;
  });
}

// BSF and BSR: of nothing they leave the whole register, as all processors do.
template <class Op, class T, Shape shape>
Next find_bit(Cpu& cpu, const Insn& i) noexcept {
  T b{};
  if constexpr (shape == Shape::kRegReg) {
    b = get<T>(cpu, i.src);
  } else if (!load(cpu, address_of(cpu, i), b)) {
    return missed(cpu);
  }
  T a = get<T>(cpu, i.dst);
  Op::on(a, b, cpu.status);
  if (b != 0) put(cpu, i.dst, a);
  return Next::kOn;
}

template <class Op>
Handler find(const Form& form) {
  if (form.size != form.source_size) return nullptr;
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kRegReg) return find_bit<Op, T, Shape::kRegReg>;
    if (form.shape == Shape::kRegMem) return find_bit<Op, T, Shape::kRegMem>;
    return nullptr;
  });
}

template <class Op>
Handler scan(const Form& form) {
  if (form.size != form.source_size) return nullptr;
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kRegReg) return to_register<Op, T, Shape::kRegReg>;
    if (form.shape == Shape::kRegMem) return to_register<Op, T, Shape::kRegMem>;
    return nullptr;
  });
}

// ---- one operand

template <class Op, class T>
Next unary_register(Cpu& cpu, const Insn& i) noexcept {
  T a = get<T>(cpu, i.dst);
  Op::on(a, cpu.status);
  put(cpu, i.dst, a);
  return Next::kOn;
}

template <class Op, class T, bool locked>
Next unary_memory(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  if constexpr (locked) {
    Op::template locked_on<T>(typed<T>(at), cpu.status);
  } else {
    T a = load_at<T>(at);
    Op::on(a, cpu.status);
    store_at(at, a);
  }
  return Next::kOn;
}

template <class Op>
Handler unary(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kReg) return unary_register<Op, T>;
    if (form.shape != Shape::kMem) return nullptr;
    return form.lock ? unary_memory<Op, T, true> : unary_memory<Op, T, false>;
  });
}

// ---- shifts

template <class T, bool by_register>
std::uint8_t count(const Cpu& cpu, const Insn& i) noexcept {
  if constexpr (by_register) return get<std::uint8_t>(cpu, x86::kRcx * 8);
  return static_cast<std::uint8_t>(i.imm);
}

template <class Op, class T, bool by_register>
Next shift_register(Cpu& cpu, const Insn& i) noexcept {
  T a = get<T>(cpu, i.dst);
  Op::on(a, count<T, by_register>(cpu, i), cpu.status);
  put(cpu, i.dst, a);
  return Next::kOn;
}

template <class Op, class T, bool by_register>
Next shift_memory(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  T a = load_at<T>(at);
  Op::on(a, count<T, by_register>(cpu, i), cpu.status);
  store_at(at, a);
  return Next::kOn;
}

template <class Op>
Handler shift(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    switch (form.shape) {
      case Shape::kRegImm:
        return shift_register<Op, T, false>;
      case Shape::kRegReg:
        return shift_register<Op, T, true>;
      case Shape::kMemImm:
        return shift_memory<Op, T, false>;
      case Shape::kMemReg:
        return shift_memory<Op, T, true>;
      case Shape::kRegMem:
      case Shape::kReg:
      case Shape::kMem:
      case Shape::kOther:
        break;
    }
    return nullptr;
  });
}

// SHLD and SHRD of registers: dst, src, and a count, which is an immediate or CL.
template <class Op, class T, bool by_register>
Next double_shift(Cpu& cpu, const Insn& i) noexcept {
  T a = get<T>(cpu, i.dst);
  Op::on(a, get<T>(cpu, i.src), count<T, by_register>(cpu, i), cpu.status);
  put(cpu, i.dst, a);
  return Next::kOn;
}

template <class Op>
Handler shift_of_two(const completion::Instruction& instruction, const Form& form, Insn& insn) {
  const ZydisDecodedOperand& last = instruction.visible()[2];
  // With 16 bits a count above 16 has no defined result: KVM's choice, not ours.
  if (form.shape != Shape::kRegReg || form.size < 4) return nullptr;
  const bool by_register = last.type == ZYDIS_OPERAND_TYPE_REGISTER;
  if (!by_register) insn.imm = last.imm.value.u;
  return for_size(form.size, [&]<class T>(T) -> Handler {
    if constexpr (sizeof(T) < 4) {
      return nullptr;
    } else {
      return by_register ? double_shift<Op, T, true> : double_shift<Op, T, false>;
    }
  });
}

// ---- multiplication and division

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

// ---- exchange

template <class T, bool locked>
Next exchange_add_memory(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  T b = get<T>(cpu, i.src);
  if constexpr (locked) {
    op::LockedXadd::on<T>(typed<T>(at), b, cpu.status);
  } else {
    op::Xadd::on<T>(typed<T>(at), b, cpu.status);
  }
  put(cpu, i.src, b);
  return Next::kOn;
}

template <class T>
Next exchange_add_register(Cpu& cpu, const Insn& i) noexcept {
  T a = get<T>(cpu, i.dst);
  const T before = a;
  op::Add::on(a, get<T>(cpu, i.src), cpu.status);
  put(cpu, i.src, before);
  put(cpu, i.dst, a);
  return Next::kOn;
}

// Always as if LOCKed: no guest can tell.
template <class T>
Next compare_exchange_memory(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  const T expected = get<T>(cpu, x86::kRax * 8);
  T found = expected;
  asm volatile("lock cmpxchg %[desired], %[at]"
               : [at] "+m"(*typed<T>(at)), "+a"(found)
               : [desired] "q"(get<T>(cpu, i.src))
               : "cc", "memory");
  T a = expected;
  op::Cmp::on(a, found, cpu.status);
  if (found != expected) put(cpu, x86::kRax * 8, found);
  return Next::kOn;
}

template <class T>
Next compare_exchange_register(Cpu& cpu, const Insn& i) noexcept {
  T expected = get<T>(cpu, x86::kRax * 8);
  const T found = get<T>(cpu, i.dst);
  op::Cmp::on(expected, found, cpu.status);
  if (found == expected) {
    put(cpu, i.dst, get<T>(cpu, i.src));
  } else {
    put(cpu, x86::kRax * 8, found);
  }
  return Next::kOn;
}

Next compare_exchange_16(Cpu& cpu, const Insn& i) noexcept {
  const std::uint64_t address = address_of(cpu, i);
  if (address % 16 != 0) return cpu.leave_harmless();  // #GP
  std::byte* const at = place(cpu, address, 16);
  if (at == nullptr) return missed(cpu);
  auto& file = cpu.file;
  bool swapped = false;
  asm volatile("lock cmpxchg16b %[at]"
               : [at] "+m"(*typed<unsigned __int128>(at)), "+a"(file[x86::kRax]),
                 "+d"(file[x86::kRdx]), "=@ccz"(swapped)
               : "b"(file[x86::kRbx]), "c"(file[x86::kRcx])
               : "memory");
  constexpr Status kZero = 0x4000;
  cpu.status = static_cast<Status>(swapped ? cpu.status | kZero : cpu.status & ~kZero);
  return Next::kOn;
}

Handler compare_exchange(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    return form.shape == Shape::kMemReg   ? compare_exchange_memory<T>
           : form.shape == Shape::kRegReg ? compare_exchange_register<T>
                                          : nullptr;
  });
}

Handler exchange_add(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kRegReg) return exchange_add_register<T>;
    if (form.shape != Shape::kMemReg) return nullptr;
    return form.lock ? exchange_add_memory<T, true> : exchange_add_memory<T, false>;
  });
}

}  // namespace

Handler choose_arithmetic(const completion::Instruction& instruction, const Form& form,
                          Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_ADD:
      return binary<op::Add>(form);
    case ZYDIS_MNEMONIC_SUB:
      return binary<op::Sub>(form);
    case ZYDIS_MNEMONIC_AND:
      return binary<op::And>(form);
    case ZYDIS_MNEMONIC_OR:
      return binary<op::Or>(form);
    case ZYDIS_MNEMONIC_XOR:
      return binary<op::Xor>(form);
    case ZYDIS_MNEMONIC_ADC:
      return binary<op::Adc>(form);
    case ZYDIS_MNEMONIC_SBB:
      return binary<op::Sbb>(form);
    case ZYDIS_MNEMONIC_CMP:
      return binary<op::Cmp>(form);
    case ZYDIS_MNEMONIC_TEST:
      return binary<op::Test>(form);
    case ZYDIS_MNEMONIC_INC:
      return unary<op::Inc>(form);
    case ZYDIS_MNEMONIC_DEC:
      return unary<op::Dec>(form);
    case ZYDIS_MNEMONIC_NEG:
      return unary<op::Neg>(form);
    case ZYDIS_MNEMONIC_NOT:
      return unary<op::Not>(form);
    case ZYDIS_MNEMONIC_SHL:
      return shift<op::Shl>(form);
    case ZYDIS_MNEMONIC_SHR:
      return shift<op::Shr>(form);
    case ZYDIS_MNEMONIC_SAR:
      return shift<op::Sar>(form);
    case ZYDIS_MNEMONIC_ROL:
      return shift<op::Rol>(form);
    case ZYDIS_MNEMONIC_ROR:
      return shift<op::Ror>(form);
    case ZYDIS_MNEMONIC_RCL:
      return shift<op::Rcl>(form);
    case ZYDIS_MNEMONIC_RCR:
      return shift<op::Rcr>(form);
    case ZYDIS_MNEMONIC_SHLD:
      return shift_of_two<op::Shld>(instruction, form, insn);
    case ZYDIS_MNEMONIC_SHRD:
      return shift_of_two<op::Shrd>(instruction, form, insn);
    case ZYDIS_MNEMONIC_BT:
      return bit<op::Bt>(form, insn);
    case ZYDIS_MNEMONIC_BTS:
      return bit<op::Bts>(form, insn);
    case ZYDIS_MNEMONIC_BTR:
      return bit<op::Btr>(form, insn);
    case ZYDIS_MNEMONIC_BTC:
      return bit<op::Btc>(form, insn);
    case ZYDIS_MNEMONIC_BSF:
      return find<op::Bsf>(form);
    case ZYDIS_MNEMONIC_BSR:
      return find<op::Bsr>(form);
    case ZYDIS_MNEMONIC_TZCNT:
      return scan<op::Tzcnt>(form);
    case ZYDIS_MNEMONIC_LZCNT:
      return scan<op::Lzcnt>(form);
    case ZYDIS_MNEMONIC_POPCNT:
      return scan<op::Popcnt>(form);
    case ZYDIS_MNEMONIC_MUL:
      return multiplication<false>(form);
    case ZYDIS_MNEMONIC_IMUL:
      return signed_multiplication(instruction, form, insn);
    case ZYDIS_MNEMONIC_DIV:
      return division<false>(form);
    case ZYDIS_MNEMONIC_IDIV:
      return division<true>(form);
    case ZYDIS_MNEMONIC_XADD:
      return exchange_add(form);
    case ZYDIS_MNEMONIC_CMPXCHG:
      return compare_exchange(form);
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      return compare_exchange_16;
    default:
      return nullptr;
  }
}

}  // namespace vmm::interpreter

// Single bits, and searching and counting them.
#include "vmm/interpreter/two_operands.h"

namespace vmm::interpreter {
namespace {

// Bits of a string of bits: a register names any of them (SDM volume 2, BT)
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

}  // namespace

Handler choose_bits(const completion::Instruction& instruction, const Form& form, Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
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
    default:
      return nullptr;
  }
}

}  // namespace vmm::interpreter

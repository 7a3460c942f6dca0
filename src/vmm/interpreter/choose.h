// Choosing a handler: from sizes and shapes that are known when an instruction is decoded to code
// that knows them when it is compiled.
#pragma once

#include <cstdint>
#include <type_traits>

#include "vmm/completion/instruction.h"
#include "vmm/interpreter/insn.h"

namespace vmm::interpreter {

// fn(T{}) with the unsigned type of `size` bytes; null for another size.
template <class Fn>
Handler for_size(unsigned size, Fn&& fn) {
  switch (size) {
    case 1:
      return fn(std::uint8_t{});
    case 2:
      return fn(std::uint16_t{});
    case 4:
      return fn(std::uint32_t{});
    case 8:
      return fn(std::uint64_t{});
    default:
      return nullptr;
  }
}
// The same without bytes.
template <class Fn>
Handler for_wide_size(unsigned size, Fn&& fn) {
  return size == 1 ? nullptr : for_size(size, [&](auto zero) -> Handler {
    if constexpr (sizeof zero == 1) {
      return nullptr;
    } else {
      return fn(zero);
    }
  });
}

// Each looks whether the instruction is one of its kind and chooses a handler, with what that needs
// in `insn`; null when not. What none knows is KVM's.
Handler choose_arithmetic(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_bits(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_multiplication(const completion::Instruction& instruction, const Form& form,
                              Insn& insn);
Handler choose_exchange(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_move(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_control(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_string(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_device(const completion::Instruction& instruction, const Form& form, Insn& insn);
Handler choose_system(const completion::Instruction& instruction, const Form& form, Insn& insn);

}  // namespace vmm::interpreter

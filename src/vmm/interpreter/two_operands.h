// Instructions of two operands, of which the first is changed or compared: for any operation of
// operations.h.
#pragma once

#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"
#include "vmm/interpreter/operations.h"

namespace vmm::interpreter {

template <class T>
op::Unaligned<T>* typed(std::byte* at) noexcept {
  return reinterpret_cast<op::Unaligned<T>*>(at);
}

template <class Op, class T, Shape shape>
Next to_register(Cpu& cpu, const Insn& i) noexcept {
  T b{};
  if constexpr (shape == Shape::kRegReg) {
    b = get<T>(cpu, i.src);
  } else if constexpr (shape == Shape::kRegImm) {
    b = static_cast<T>(i.imm);
  } else if (!load_any(cpu, address_of(cpu, i), b)) {
    return missed_device(cpu, address_of(cpu, i), sizeof b);
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
    if (!load_any(cpu, address_of(cpu, i), a))
      return missed_device(cpu, address_of(cpu, i), sizeof a);
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

// Two registers, or a register and memory, of one size and not bytes.
template <class Op>
Handler scan(const Form& form) {
  if (form.size != form.source_size) return nullptr;
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kRegReg) return to_register<Op, T, Shape::kRegReg>;
    if (form.shape == Shape::kRegMem) return to_register<Op, T, Shape::kRegMem>;
    return nullptr;
  });
}

}  // namespace vmm::interpreter

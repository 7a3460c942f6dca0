// XADD and CMPXCHG.
#include "vmm/interpreter/two_operands.h"

namespace vmm::interpreter {
namespace {

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

Handler choose_exchange(const completion::Instruction& instruction, const Form& form, Insn&) {
  switch (static_cast<int>(instruction.mnemonic())) {
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

// Moving data: MOV and its kin, the stack, exchange, conditional moves, addresses.
#include <bit>

#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"
#include "vmm/interpreter/operations.h"

namespace vmm::interpreter {
namespace {

constexpr std::uint8_t kRsp = x86::kRsp * 8;

// ---- MOV

template <class T>
Next move_register(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, get<T>(cpu, i.src));
  return Next::kOn;
}
template <class T>
Next move_immediate(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, static_cast<T>(i.imm));
  return Next::kOn;
}
template <class T>
Next move_load(Cpu& cpu, const Insn& i) noexcept {
  T value{};
  if (!load_any(cpu, address_of(cpu, i), value))
    return missed_device(cpu, address_of(cpu, i), sizeof value);
  put(cpu, i.dst, value);
  return Next::kOn;
}
template <class T>
Next move_store(Cpu& cpu, const Insn& i) noexcept {
  return store_any(cpu, address_of(cpu, i), get<T>(cpu, i.src));
}
template <class T>
Next move_store_immediate(Cpu& cpu, const Insn& i) noexcept {
  return store_any(cpu, address_of(cpu, i), static_cast<T>(i.imm));
}

Handler move(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    switch (form.shape) {
      case Shape::kRegReg:
        return move_register<T>;
      case Shape::kRegImm:
        return move_immediate<T>;
      case Shape::kRegMem:
        return move_load<T>;
      case Shape::kMemReg:
        return move_store<T>;
      case Shape::kMemImm:
        return move_store_immediate<T>;
      case Shape::kReg:
      case Shape::kMem:
      case Shape::kOther:
        break;
    }
    return nullptr;
  });
}

// ---- MOVZX, MOVSX, MOVSXD

template <class To, class From>
Next extend_register(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst,
      static_cast<std::make_unsigned_t<To>>(
          To{static_cast<From>(get<std::make_unsigned_t<From>>(cpu, i.src))}));
  return Next::kOn;
}
template <class To, class From>
Next extend_load(Cpu& cpu, const Insn& i) noexcept {
  std::make_unsigned_t<From> value{};
  if (!load_any(cpu, address_of(cpu, i), value))
    return missed_device(cpu, address_of(cpu, i), sizeof value);
  put(cpu, i.dst, static_cast<std::make_unsigned_t<To>>(To{static_cast<From>(value)}));
  return Next::kOn;
}

template <bool is_signed>
Handler extend(const Form& form) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    return for_size(form.source_size, [&]<class U>(U) -> Handler {
      if constexpr (sizeof(U) > sizeof(T)) {
        return nullptr;
      } else {
        using To = std::conditional_t<is_signed, std::make_signed_t<T>, T>;
        using From = std::conditional_t<is_signed, std::make_signed_t<U>, U>;
        return form.shape == Shape::kRegReg   ? extend_register<To, From>
               : form.shape == Shape::kRegMem ? extend_load<To, From>
                                              : nullptr;
      }
    });
  });
}

// CBW, CWDE, CDQE and CWD, CDQ, CQO.
template <class To, class From>
Next extend_accumulator(Cpu& cpu, const Insn&) noexcept {
  const auto low = static_cast<From>(get<std::make_unsigned_t<From>>(cpu, x86::kRax * 8));
  put(cpu, x86::kRax * 8, static_cast<std::make_unsigned_t<To>>(To{low}));
  return Next::kOn;
}
template <class T>
Next sign_to_rdx(Cpu& cpu, const Insn&) noexcept {
  const T low = get<T>(cpu, x86::kRax * 8);
  put(cpu, x86::kRdx * 8, static_cast<T>(T{0} - static_cast<T>(low >> (sizeof(T) * 8 - 1))));
  return Next::kOn;
}

// ---- addresses and conditions

template <class T>
Next load_address(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, static_cast<T>(address_of(cpu, i)));
  return Next::kOn;
}

// With 32 bits the upper half is cleared whether it moves or not.
template <class T>
Next move_if(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, get<T>(cpu, holds(cpu.status, i.condition) ? i.src : i.dst));
  return Next::kOn;
}
template <class T>
Next load_if(Cpu& cpu, const Insn& i) noexcept {
  T value{};
  if (!load(cpu, address_of(cpu, i), value)) return missed(cpu);
  put(cpu, i.dst, holds(cpu.status, i.condition) ? value : get<T>(cpu, i.dst));
  return Next::kOn;
}
Handler conditional_move(const Form& form) {
  return for_wide_size(form.size, [&]<class T>(T) -> Handler {
    return form.shape == Shape::kRegReg   ? move_if<T>
           : form.shape == Shape::kRegMem ? load_if<T>
                                          : nullptr;
  });
}

Next set_register(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, static_cast<std::uint8_t>(holds(cpu.status, i.condition) ? 1 : 0));
  return Next::kOn;
}
Next set_memory(Cpu& cpu, const Insn& i) noexcept {
  const auto value = static_cast<std::uint8_t>(holds(cpu.status, i.condition) ? 1 : 0);
  return store(cpu, address_of(cpu, i), value) ? Next::kOn : missed(cpu);
}

// ---- the stack, always of 64 bits here

bool push(Cpu& cpu, std::uint64_t value) noexcept {
  const std::uint64_t rsp = get<std::uint64_t>(cpu, kRsp) - 8;
  if (!store(cpu, rsp, value)) return false;
  put(cpu, kRsp, rsp);
  return true;
}
Next push_register(Cpu& cpu, const Insn& i) noexcept {
  return push(cpu, get<std::uint64_t>(cpu, i.dst)) ? Next::kOn : missed(cpu);
}
Next push_immediate(Cpu& cpu, const Insn& i) noexcept {
  return push(cpu, i.imm) ? Next::kOn : missed(cpu);
}
Next push_memory(Cpu& cpu, const Insn& i) noexcept {
  std::uint64_t value = 0;
  if (!load(cpu, address_of(cpu, i), value)) return missed(cpu);
  return push(cpu, value) ? Next::kOn : missed(cpu);
}
Next pop_register(Cpu& cpu, const Insn& i) noexcept {
  const std::uint64_t rsp = get<std::uint64_t>(cpu, kRsp);
  std::uint64_t value = 0;
  if (!load(cpu, rsp, value)) return missed(cpu);
  put(cpu, kRsp, rsp + 8);
  put(cpu, i.dst, value);  // last: it may be RSP
  return Next::kOn;
}
Next push_flags(Cpu& cpu, const Insn&) noexcept {
  // VM and RF are stored as zeroes (SDM volume 2, PUSHF).
  return push(cpu, cpu.rflags() & ~(kFlagVm | x86::kFlagRf)) ? Next::kOn : missed(cpu);
}
Next pop_flags(Cpu& cpu, const Insn&) noexcept {
  const std::uint64_t rsp = get<std::uint64_t>(cpu, kRsp);
  std::uint64_t value = 0;
  if (!load(cpu, rsp, value)) return missed(cpu);
  // Not as a step: KVM, which steps by TF itself, would not tell of the guest's.
  if ((value & x86::kFlagTf) != 0) return cpu.leave(Stop::kKvmToUser);
  // At CPL 0 (SDM volume 2, POPF): all but VIP, VIF and VM; RF is cleared.
  constexpr std::uint64_t kChanged = kStatusFlags | kFlagDf | x86::kFlagIf | x86::kFlagIopl |
                                     kFlagNt | x86::kFlagAc | std::uint64_t{1} << 21;
  cpu.set_rflags((value & kChanged) | (cpu.rflags() & ~(kChanged | x86::kFlagRf)));
  put(cpu, kRsp, rsp + 8);
  return Next::kJump;  // interrupts may be on now
}
Next leave_frame(Cpu& cpu, const Insn&) noexcept {
  const std::uint64_t frame = get<std::uint64_t>(cpu, x86::kRbp * 8);
  std::uint64_t value = 0;
  if (!load(cpu, frame, value)) return missed(cpu);
  put(cpu, kRsp, frame + 8);
  put(cpu, x86::kRbp * 8, value);
  return Next::kOn;
}

Handler push_of(const Form& form) {
  if (form.size != 8) return nullptr;
  switch (form.shape) {
    case Shape::kReg:
      return push_register;
    case Shape::kMem:
      return push_memory;
    case Shape::kRegReg:
    case Shape::kRegMem:
    case Shape::kRegImm:
    case Shape::kMemReg:
    case Shape::kMemImm:
    case Shape::kOther:
      break;
  }
  return nullptr;
}

// ---- exchange and bytes

template <class T>
Next exchange_register(Cpu& cpu, const Insn& i) noexcept {
  const T a = get<T>(cpu, i.dst), b = get<T>(cpu, i.src);
  put(cpu, i.dst, b);
  put(cpu, i.src, a);
  return Next::kOn;
}
// LOCKed, whatever is written.
template <class T>
Next exchange_memory(Cpu& cpu, const Insn& i) noexcept {
  std::byte* const at = place(cpu, address_of(cpu, i), sizeof(T));
  if (at == nullptr) return missed(cpu);
  T value = get<T>(cpu, i.src);
  asm volatile("xchg %[value], %[at]"
               : [at] "+m"(*reinterpret_cast<op::Unaligned<T>*>(at)), [value] "+q"(value)
               :
               : "memory");
  put(cpu, i.src, value);
  return Next::kOn;
}
Handler exchange(const Form& form, Insn& insn) {
  return for_size(form.size, [&]<class T>(T) -> Handler {
    if (form.shape == Shape::kRegReg) return exchange_register<T>;
    if (form.shape == Shape::kRegMem) insn.src = insn.dst;  // both orders are the same
    return form.shape == Shape::kMemReg || form.shape == Shape::kRegMem ? exchange_memory<T>
                                                                        : nullptr;
  });
}

template <class T>
Next swap_bytes(Cpu& cpu, const Insn& i) noexcept {
  const T value = get<T>(cpu, i.dst);
  if constexpr (sizeof(T) == 8) {
    put(cpu, i.dst, T{__builtin_bswap64(value)});
  } else {
    put(cpu, i.dst, T{__builtin_bswap32(value)});
  }
  return Next::kOn;
}

Next nothing(Cpu&, const Insn&) noexcept { return Next::kOn; }
Next fence(Cpu&, const Insn&) noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return Next::kOn;
}

Handler choose_by_condition(const completion::Instruction& instruction, const Form& form,
                            Insn& insn) {
  insn.condition = instruction.info().opcode & 0xf;
  switch (static_cast<int>(instruction.info().meta.category)) {
    case ZYDIS_CATEGORY_CMOV:
      return conditional_move(form);
    case ZYDIS_CATEGORY_SETCC:
      return form.shape == Shape::kReg   ? set_register
             : form.shape == Shape::kMem ? set_memory
                                         : nullptr;
    default:
      return nullptr;
  }
}

}  // namespace

Handler choose_move(const completion::Instruction& instruction, const Form& form, Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_MOV:
      return move(form);
    case ZYDIS_MNEMONIC_MOVZX:
      return extend<false>(form);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
      return extend<true>(form);
    case ZYDIS_MNEMONIC_CBW:
      return extend_accumulator<std::int16_t, std::int8_t>;
    case ZYDIS_MNEMONIC_CWDE:
      return extend_accumulator<std::int32_t, std::int16_t>;
    case ZYDIS_MNEMONIC_CDQE:
      return extend_accumulator<std::int64_t, std::int32_t>;
    case ZYDIS_MNEMONIC_CWD:
      return sign_to_rdx<std::uint16_t>;
    case ZYDIS_MNEMONIC_CDQ:
      return sign_to_rdx<std::uint32_t>;
    case ZYDIS_MNEMONIC_CQO:
      return sign_to_rdx<std::uint64_t>;
    case ZYDIS_MNEMONIC_LEA:
      return for_wide_size(form.size,
                           [](auto zero) -> Handler { return load_address<decltype(zero)>; });
    case ZYDIS_MNEMONIC_PUSH:
      if (instruction.visible()[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        insn.imm = instruction.visible()[0].imm.value.u;
        return instruction.info().operand_width == 64 ? push_immediate : nullptr;
      }
      return push_of(form);
    case ZYDIS_MNEMONIC_POP:
      return form.shape == Shape::kReg && form.size == 8 ? pop_register : nullptr;
    case ZYDIS_MNEMONIC_PUSHFQ:
      return push_flags;
    case ZYDIS_MNEMONIC_POPFQ:
      return pop_flags;
    case ZYDIS_MNEMONIC_LEAVE:
      return instruction.info().operand_width == 64 ? leave_frame : nullptr;
    case ZYDIS_MNEMONIC_XCHG:
      return exchange(form, insn);
    case ZYDIS_MNEMONIC_BSWAP:
      return form.size == 8   ? swap_bytes<std::uint64_t>
             : form.size == 4 ? swap_bytes<std::uint32_t>
                              : nullptr;
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHW:
      return nothing;
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
      return fence;
    case ZYDIS_MNEMONIC_MOVNTI:
      return move(form);
    default:
      return choose_by_condition(instruction, form, insn);
  }
}

}  // namespace vmm::interpreter

// String instructions: MOVS, STOS, LODS, SCAS and CMPS with their repeat prefixes.
//
// A repeated one does as much as lies in one page of each operand at a time; then RIP still points
// to it, as after an interrupt, and it goes on from there.
#include <algorithm>
#include <array>

#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"
#include "vmm/interpreter/operations.h"

namespace vmm::interpreter {
namespace {

enum class Repeat : std::uint8_t { kNone, kAlways, kWhileEqual, kWhileNotEqual };

constexpr std::uint64_t kPage = Tlb::kPage;

std::uint64_t& rcx(Cpu& cpu) noexcept { return cpu.file[x86::kRcx]; }
std::uint64_t& rsi(Cpu& cpu) noexcept { return cpu.file[x86::kRsi]; }
std::uint64_t& rdi(Cpu& cpu) noexcept { return cpu.file[x86::kRdi]; }
std::uint64_t source_of(const Cpu& cpu, const Insn& i) noexcept {
  return cpu.file[x86::kRsi] + cpu.segment_base[i.segment];
}

bool backward(const Cpu& cpu) noexcept { return (cpu.other_flags & kFlagDf) != 0; }
template <class T>
std::uint64_t step(const Cpu& cpu) noexcept {
  return backward(cpu) ? std::uint64_t{0} - sizeof(T) : sizeof(T);
}

// How many elements from `address` up lie whole in its page.
template <class T>
std::uint64_t to_page_end(std::uint64_t address) noexcept {
  return (kPage - address % kPage) / sizeof(T);
}

// After one part of a repeated instruction.
Next part_done(Cpu& cpu) noexcept {
  if (rcx(cpu) == 0) return Next::kOn;
  cpu.stop = Stop::kAgain;
  return Next::kStop;
}

// ---- one element

template <class T>
bool move_one(Cpu& cpu, const Insn& i) noexcept {
  T value{};
  if (!load(cpu, source_of(cpu, i), value) || !store(cpu, rdi(cpu), value)) return false;
  rsi(cpu) += step<T>(cpu);
  rdi(cpu) += step<T>(cpu);
  return true;
}
template <class T>
bool store_one(Cpu& cpu, const Insn&) noexcept {
  if (!store(cpu, rdi(cpu), get<T>(cpu, x86::kRax * 8))) return false;
  rdi(cpu) += step<T>(cpu);
  return true;
}
template <class T>
bool load_one(Cpu& cpu, const Insn& i) noexcept {
  T value{};
  if (!load(cpu, source_of(cpu, i), value)) return false;
  put(cpu, x86::kRax * 8, value);
  rsi(cpu) += step<T>(cpu);
  return true;
}
template <class T>
bool scan_one(Cpu& cpu, const Insn&) noexcept {
  T value{};
  if (!load(cpu, rdi(cpu), value)) return false;
  T a = get<T>(cpu, x86::kRax * 8);
  op::Cmp::on(a, value, cpu.status);
  rdi(cpu) += step<T>(cpu);
  return true;
}
template <class T>
bool compare_one(Cpu& cpu, const Insn& i) noexcept {
  T a{}, b{};
  if (!load(cpu, source_of(cpu, i), a) || !load(cpu, rdi(cpu), b)) return false;
  op::Cmp::on(a, b, cpu.status);
  rsi(cpu) += step<T>(cpu);
  rdi(cpu) += step<T>(cpu);
  return true;
}

// ---- many elements in one page

// How many elements MOVS and STOS can do in place; 0: one at a time. Forward only, and where source
// and destination are one page's, a copy must not see what it has written.
template <class T>
std::uint64_t in_place(const Cpu& cpu, std::uint64_t most) noexcept {
  if (backward(cpu)) return 0;
  return std::min({cpu.file[x86::kRcx], most, to_page_end<T>(cpu.file[x86::kRdi])});
}

template <class T>
bool move_many(Cpu& cpu, const Insn& i, std::uint64_t n) noexcept {
  const std::size_t bytes = n * sizeof(T);
  const std::byte* const from = cpu.tlb.read(source_of(cpu, i), bytes);
  std::byte* const to = from != nullptr ? cpu.tlb.write(rdi(cpu), bytes) : nullptr;
  if (to == nullptr || (to > from && to < from + bytes)) return false;
  std::memmove(to, from, bytes);
  rsi(cpu) += bytes;
  rdi(cpu) += bytes;
  rcx(cpu) -= n;
  return true;
}

// The same by way of a buffer, where one of them cannot be accessed in place.
template <class T>
bool move_guarded(Cpu& cpu, const Insn& i, std::uint64_t n) noexcept {
  const std::size_t bytes = n * sizeof(T);
  const std::uint64_t from = source_of(cpu, i);
  if (rdi(cpu) - from < bytes) return false;
  std::array<std::byte, kPage> buffer;
  const std::span<std::byte> part = std::span(buffer).first(bytes);
  if (!cpu.tlb.copy_in(from, part) || !cpu.tlb.copy_out(rdi(cpu), part)) return false;
  rsi(cpu) += bytes;
  rdi(cpu) += bytes;
  rcx(cpu) -= n;
  return true;
}

template <class T>
bool store_guarded(Cpu& cpu, std::uint64_t n) noexcept {
  std::array<std::byte, kPage> buffer;
  const T value = get<T>(cpu, x86::kRax * 8);
  for (std::uint64_t k = 0; k < n; ++k) {
    std::memcpy(buffer.data() + k * sizeof(T), &value, sizeof(T));
  }
  if (!cpu.tlb.copy_out(rdi(cpu), std::span(buffer).first(n * sizeof(T)))) return false;
  rdi(cpu) += n * sizeof(T);
  rcx(cpu) -= n;
  return true;
}

template <class T>
bool store_many(Cpu& cpu, std::uint64_t n) noexcept {
  std::byte* const to = cpu.tlb.write(rdi(cpu), n * sizeof(T));
  if (to == nullptr) return false;
  const T value = get<T>(cpu, x86::kRax * 8);
  if (value == 0) {
    std::memset(to, 0, n * sizeof(T));
  } else {
    for (std::uint64_t k = 0; k < n; ++k) store_at(to + k * sizeof(T), value);
  }
  rdi(cpu) += n * sizeof(T);
  rcx(cpu) -= n;
  return true;
}

// ---- handlers

template <class T>
Next move_string(Cpu& cpu, const Insn& i) noexcept {
  return move_one<T>(cpu, i) ? Next::kOn : missed(cpu);
}
template <class T>
Next move_repeated(Cpu& cpu, const Insn& i) noexcept {
  if (rcx(cpu) == 0) return Next::kOn;
  const std::uint64_t n = in_place<T>(cpu, to_page_end<T>(source_of(cpu, i)));
  if (n != 0 && move_many<T>(cpu, i, n)) return part_done(cpu);
  if (n != 0 && cpu.tlb.last_miss().guarded && move_guarded<T>(cpu, i, n)) return part_done(cpu);
  (void)cpu.tlb.take_table();
  if (!move_one<T>(cpu, i)) return missed(cpu);
  --rcx(cpu);
  return part_done(cpu);
}

template <class T>
Next store_string(Cpu& cpu, const Insn& i) noexcept {
  return store_one<T>(cpu, i) ? Next::kOn : missed(cpu);
}
template <class T>
Next store_repeated(Cpu& cpu, const Insn& i) noexcept {
  if (rcx(cpu) == 0) return Next::kOn;
  const std::uint64_t n = in_place<T>(cpu, kPage);
  if (n != 0 && store_many<T>(cpu, n)) return part_done(cpu);
  if (n != 0 && cpu.tlb.last_miss().guarded && store_guarded<T>(cpu, n)) return part_done(cpu);
  (void)cpu.tlb.take_table();
  if (!store_one<T>(cpu, i)) return missed(cpu);
  --rcx(cpu);
  return part_done(cpu);
}

// LODS, and SCAS and CMPS, which may stop at what they find.
template <class T, bool (*one)(Cpu&, const Insn&) noexcept, Repeat repeat>
Next one_by_one(Cpu& cpu, const Insn& i) noexcept {
  if constexpr (repeat == Repeat::kNone) {
    return one(cpu, i) ? Next::kOn : missed(cpu);
  } else {
    constexpr std::uint64_t kPart = 256;
    for (std::uint64_t n = 0; n < kPart; ++n) {
      if (rcx(cpu) == 0) return Next::kOn;
      if (!one(cpu, i)) return missed(cpu);
      --rcx(cpu);
      const bool equal = holds(cpu.status, 4);
      if ((repeat == Repeat::kWhileEqual && !equal) ||
          (repeat == Repeat::kWhileNotEqual && equal)) {
        return Next::kOn;
      }
    }
    return part_done(cpu);
  }
}

template <class T, bool (*one)(Cpu&, const Insn&) noexcept>
Handler by_repeat(Repeat repeat) {
  switch (repeat) {
    case Repeat::kNone:
      return one_by_one<T, one, Repeat::kNone>;
    case Repeat::kAlways:
      return one_by_one<T, one, Repeat::kAlways>;
    case Repeat::kWhileEqual:
      return one_by_one<T, one, Repeat::kWhileEqual>;
    case Repeat::kWhileNotEqual:
      return one_by_one<T, one, Repeat::kWhileNotEqual>;
  }
  return nullptr;
}

Repeat repeat_of(const completion::Instruction& instruction) {
  if (instruction.has(ZYDIS_ATTRIB_HAS_REPNE)) return Repeat::kWhileNotEqual;
  if (instruction.has(ZYDIS_ATTRIB_HAS_REPE)) return Repeat::kWhileEqual;
  if (instruction.has(ZYDIS_ATTRIB_HAS_REP)) return Repeat::kAlways;
  return Repeat::kNone;
}

}  // namespace

Handler choose_string(const completion::Instruction& instruction, const Form&, Insn& insn) {
  if (instruction.info().meta.category != ZYDIS_CATEGORY_STRINGOP) return nullptr;
  // The source's segment; the destination's is always ES, whose base is 0.
  for (const ZydisDecodedOperand& operand : instruction.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (operand.mem.segment == ZYDIS_REGISTER_FS) insn.segment = 1;
    if (operand.mem.segment == ZYDIS_REGISTER_GS) insn.segment = 2;
  }
  const Repeat repeat = repeat_of(instruction);
  return for_size(instruction.info().operand_width / 8U, [&]<class T>(T) -> Handler {
    switch (instruction.info().opcode) {
      case 0xa4:
      case 0xa5:
        return repeat == Repeat::kNone ? move_string<T> : move_repeated<T>;
      case 0xaa:
      case 0xab:
        return repeat == Repeat::kNone ? store_string<T> : store_repeated<T>;
      case 0xac:
      case 0xad:
        return by_repeat<T, load_one<T>>(repeat);
      case 0xae:
      case 0xaf:
        return by_repeat<T, scan_one<T>>(repeat);
      case 0xa6:
      case 0xa7:
        return by_repeat<T, compare_one<T>>(repeat);
      default:
        return nullptr;
    }
  });
}

}  // namespace vmm::interpreter

#include "vmm/interpreter/transfer.h"

#include <array>
#include <span>

#include "base/le.h"
#include "vmm/interpreter/access.h"
#include "vmm/x86/flat_segment.h"
#include "vmm/x86/gdt.h"

namespace vmm::interpreter {
namespace {

// Segment types (SDM volume 3, table 3-1), accessed bit aside.
constexpr std::uint8_t kTypeCode = 0x8, kTypeConforming = 0x4, kTypeWritable = 0x2;
constexpr std::uint8_t kTypeAccessed = 0x1;

template <class T>
bool read_table(Cpu& cpu, std::uint64_t address, T& value) noexcept {
  return cpu.tlb.copy_in(address, std::as_writable_bytes(std::span(&value, 1)));
}

// A descriptor of the GDT (SDM volume 3, figure 3-8). Nothing: absent, not a segment, or not marked
// as accessed, which the processor would do.
std::optional<x86::Segment> read_segment(Cpu& cpu, std::uint16_t selector) {
  constexpr std::uint16_t kLocal = 4;
  const std::uint64_t offset = selector & 0xfff8U;
  if (offset == 0 || (selector & kLocal) != 0 || offset + 7 > cpu.system.gdt.limit) {
    return std::nullopt;
  }
  std::uint64_t raw = 0;
  if (!read_table(cpu, cpu.system.gdt.base + offset, raw)) return std::nullopt;
  const x86::Segment s = x86::segment_of(selector, raw);
  if (!s.present || !s.code_or_data || (s.type & kTypeAccessed) == 0) return std::nullopt;
  return s;
}

bool is_64bit_code(const x86::Segment& s, unsigned dpl) noexcept {
  return (s.type & kTypeCode) != 0 && (s.type & kTypeConforming) == 0 && s.long_mode &&
         !s.default_big && s.dpl == dpl;
}
bool is_stack(const x86::Segment& s, unsigned dpl) noexcept {
  return (s.type & kTypeCode) == 0 && (s.type & kTypeWritable) != 0 && s.dpl == dpl;
}

// The stack segment of CPL 0 after a change of privilege: the null selector.
x86::Segment null_stack() noexcept {
  return x86::flat_segment(0, kTypeWritable | kTypeAccessed, 0, false);
}

// A 64-bit gate (SDM volume 3, figure 6-8).
struct Gate {
  Le16 offset_low, selector;
  std::uint8_t ist, type;
  Le16 offset_middle;
  Le32 offset_high, reserved;

  std::uint64_t target() const noexcept {
    return std::uint64_t{offset_low} | std::uint64_t{offset_middle} << 16 |
           std::uint64_t{offset_high} << 32;
  }
};
static_assert(sizeof(Gate) == 16);

constexpr std::uint8_t kPresentInterruptGate = 0x8e, kPresentTrapGate = 0x8f;

// Where the frame goes (SDM volume 3, 6.14.2 and figure 8-11).
bool stack_for(Cpu& cpu, const Gate& gate, bool from_user, std::uint64_t& rsp) {
  constexpr std::uint64_t kRsp0 = 4, kIst1 = 0x24;
  const unsigned ist = gate.ist & 7;
  rsp = cpu.file[x86::kRsp];
  if (ist != 0 || from_user) {
    const std::uint64_t at = ist != 0 ? kIst1 + 8 * (ist - 1) : kRsp0;
    if (at + 7 > cpu.system.tr.limit || !read_table(cpu, cpu.system.tr.base + at, rsp))
      return false;
  }
  rsp &= ~std::uint64_t{15};
  return true;
}

}  // namespace

bool deliver(Cpu& cpu, const Event& event) {
  const int cpl = cpu.system.cpl();
  Gate gate{};
  const std::uint64_t offset = event.vector * sizeof(Gate);
  if ((cpl != 0 && cpl != 3) || offset + sizeof(Gate) - 1 > cpu.system.idt.limit ||
      !read_table(cpu, cpu.system.idt.base + offset, gate)) {
    return false;
  }
  const std::uint8_t type = gate.type & 0x9f;  // whatever the DPL
  if (type != kPresentInterruptGate && type != kPresentTrapGate) return false;
  auto code = read_segment(cpu, gate.selector);
  if (!code || !is_64bit_code(*code, 0)) return false;
  std::uint64_t rsp = 0;
  if (!is_canonical_in(cpu.tlb.context(), Gva(gate.target())) ||
      !stack_for(cpu, gate, cpl == 3, rsp)) {
    return false;
  }
  const std::uint64_t saved = (cpu.rflags() & ~x86::kFlagRf) | (event.fault ? x86::kFlagRf : 0);
  const std::array<std::uint64_t, 6> frame{event.error_code.value_or(0), cpu.rip,
                                           cpu.system.cs.selector,       saved,
                                           cpu.file[x86::kRsp],          cpu.system.ss.selector};
  std::span<const std::byte> bytes = std::as_bytes(std::span(frame));
  if (!event.error_code) bytes = bytes.subspan(sizeof(std::uint64_t));
  rsp -= bytes.size();
  if (!cpu.tlb.copy_out(rsp, bytes)) {
    (void)cpu.tlb.take_table();
    return false;
  }
  code->selector = static_cast<std::uint16_t>(code->selector & ~3U);
  cpu.system.cs = *code;
  if (cpl == 3) cpu.system.ss = null_stack();
  cpu.file[x86::kRsp] = rsp;
  cpu.rip = gate.target();
  std::uint64_t flags = cpu.other_flags & ~(x86::kFlagTf | kFlagNt | x86::kFlagRf | kFlagVm);
  if (type == kPresentInterruptGate) flags &= ~x86::kFlagIf;
  cpu.set_other_flags(flags);
  cpu.shadow = false;
  return true;
}

namespace {

// Data segments of a kernel that its user must not keep are cleared on the way out (SDM volume 2,
// IRET); no kernel of 64 bits has any.
bool keeps_data_segments(const x86::SystemRegisters& system) noexcept {
  for (const x86::Segment* const s : {&system.ds, &system.es, &system.fs, &system.gs}) {
    if ((s->selector & ~3U) != 0 && !s->unusable && s->dpl < 3) return false;
  }
  return true;
}

bool enter(Cpu& cpu, const x86::Segment& code, const x86::Segment& stack) noexcept {
  cpu.system.cs = code;
  cpu.system.ss = stack;
  return true;
}

// IRET's segments: to the same privilege or from 0 to 3, 64-bit code on both sides.
bool return_segments(Cpu& cpu, std::uint16_t cs, std::uint16_t ss) {
  const unsigned rpl = cs & 3;
  if (rpl == 0 && cs == cpu.system.cs.selector) {
    if (ss == cpu.system.ss.selector) return true;
    if (ss == 0) return enter(cpu, cpu.system.cs, null_stack());
    const auto stack = read_segment(cpu, ss);
    return stack && is_stack(*stack, 0) && enter(cpu, cpu.system.cs, *stack);
  }
  if (rpl != 3 || (ss & 3) != 3 || !keeps_data_segments(cpu.system)) return false;
  const auto code = read_segment(cpu, cs);
  const auto stack = read_segment(cpu, ss);
  return code && stack && is_64bit_code(*code, 3) && is_stack(*stack, 3) &&
         enter(cpu, *code, *stack);
}

}  // namespace

Next iret(Cpu& cpu) {
  struct {
    std::uint64_t rip, cs, rflags, rsp, ss;
  } frame;
  if ((cpu.other_flags & kFlagNt) != 0) return cpu.leave(Stop::kKvmToUser);
  if (!cpu.tlb.copy_in(cpu.file[x86::kRsp], std::as_writable_bytes(std::span(&frame, 1)))) {
    return cpu.leave(Stop::kKvmToUser);
  }
  if ((frame.rflags & (x86::kFlagTf | kFlagVm)) != 0 || frame.cs >> 16 != 0 ||
      !is_canonical_in(cpu.tlb.context(), Gva(frame.rip)) ||
      !return_segments(cpu, static_cast<std::uint16_t>(frame.cs),
                       static_cast<std::uint16_t>(frame.ss))) {
    return cpu.leave(Stop::kKvmToUser);
  }
  // RF lasts for one instruction, and nothing here looks at it.
  constexpr std::uint64_t kChanged = kStatusFlags | kFlagDf | x86::kFlagIf | x86::kFlagIopl |
                                     kFlagNt | x86::kFlagAc | std::uint64_t{1} << 21;
  cpu.set_rflags((frame.rflags & kChanged) | (cpu.rflags() & ~(kChanged | x86::kFlagRf)));
  cpu.file[x86::kRsp] = frame.rsp;
  cpu.next_rip() = frame.rip;
  cpu.nmi_blocked = false;
  return Next::kJump;
}

Next sysret(Cpu& cpu) {
  const auto star = cpu.host.msr(x86::kMsrStar);
  const std::uint64_t rip = cpu.file[x86::kRcx];
  const std::uint64_t flags = cpu.file[x86::kR11];
  if (!star || (cpu.system.efer & x86::kEferSce) == 0 || (flags & x86::kFlagTf) != 0 ||
      !is_canonical_in(cpu.tlb.context(), Gva(rip))) {
    return cpu.leave(Stop::kKvmToUser);
  }
  // SDM volume 2, SYSRET with 64-bit operands.
  constexpr std::uint64_t kFlags = 0x3c7fd7;
  const auto base = static_cast<std::uint16_t>(*star >> 48);
  constexpr std::uint8_t kCode = kTypeCode | kTypeWritable | kTypeAccessed;
  enter(cpu, x86::flat_segment(static_cast<std::uint16_t>((base + 16) | 3), kCode, 3, true),
        x86::flat_segment(static_cast<std::uint16_t>((base + 8) | 3), kTypeWritable | kTypeAccessed,
                          3, false));
  cpu.set_rflags((flags & kFlags) | 2);
  cpu.next_rip() = rip;
  return Next::kJump;
}

}  // namespace vmm::interpreter

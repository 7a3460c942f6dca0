// The architectural state of an x86 CPU, as values: what the loaders set, the debugger shows and
// completion changes.
//
// Field names are those of the Intel SDM, volume 3, chapter 2. KVM's own structures stay behind
// src/vmm/kvm/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vmm::x86 {

// Order of the general registers in instruction encodings (SDM volume 2, table 2-2).
enum Gpr : std::uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15,
};

struct Registers {
  std::array<std::uint64_t, 16> gpr{};  // indexed by Gpr
  std::uint64_t rip = 0;
  std::uint64_t rflags = 2;  // bit 1 is always set
  bool operator==(const Registers&) const = default;
  static void fields(auto&& f) {
    f("gpr", &Registers::gpr);
    f("rip", &Registers::rip);
    f("rflags", &Registers::rflags);
  }
};

// RFLAGS bits (SDM volume 1, 3.4.3).
inline constexpr std::uint64_t kFlagCf = 1U << 0;
inline constexpr std::uint64_t kFlagZf = 1U << 6;
inline constexpr std::uint64_t kFlagTf = 1U << 8;
inline constexpr std::uint64_t kFlagIf = 1U << 9;
inline constexpr std::uint64_t kFlagIopl = 3U << 12;
inline constexpr std::uint64_t kFlagRf = 1U << 16;
inline constexpr std::uint64_t kFlagAc = 1U << 18;

// A segment register with its hidden part.
struct Segment {
  std::uint64_t base = 0;
  std::uint32_t limit = 0xffff;  // in bytes, after granularity
  std::uint16_t selector = 0;
  std::uint8_t type = 3;  // SDM volume 3, table 3-1 and 3-2
  std::uint8_t dpl = 0;
  bool present = true;
  bool code_or_data = true;  // S
  bool long_mode = false;    // L
  bool default_big = false;  // D/B
  bool granularity = false;  // G
  bool available = false;    // AVL
  bool unusable = false;
  bool operator==(const Segment&) const = default;
  static void fields(auto&& f) {
    f("base", &Segment::base);
    f("limit", &Segment::limit);
    f("selector", &Segment::selector);
    f("type", &Segment::type);
    f("dpl", &Segment::dpl);
    f("present", &Segment::present);
    f("code_or_data", &Segment::code_or_data);
    f("long_mode", &Segment::long_mode);
    f("default_big", &Segment::default_big);
    f("granularity", &Segment::granularity);
    f("available", &Segment::available);
    f("unusable", &Segment::unusable);
  }
};

struct DescriptorTable {
  std::uint64_t base = 0;
  std::uint16_t limit = 0xffff;
  bool operator==(const DescriptorTable&) const = default;
  static void fields(auto&& f) {
    f("base", &DescriptorTable::base);
    f("limit", &DescriptorTable::limit);
  }
};

struct SystemRegisters {
  Segment cs, ds, es, fs, gs, ss, tr, ldt;
  DescriptorTable gdt, idt;
  std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0;
  std::uint64_t efer = 0;
  std::uint64_t apic_base = 0;
  bool operator==(const SystemRegisters&) const = default;
  static void fields(auto&& f) {
    f("cs", &SystemRegisters::cs);
    f("ds", &SystemRegisters::ds);
    f("es", &SystemRegisters::es);
    f("fs", &SystemRegisters::fs);
    f("gs", &SystemRegisters::gs);
    f("ss", &SystemRegisters::ss);
    f("tr", &SystemRegisters::tr);
    f("ldt", &SystemRegisters::ldt);
    f("gdt", &SystemRegisters::gdt);
    f("idt", &SystemRegisters::idt);
    f("cr0", &SystemRegisters::cr0);
    f("cr2", &SystemRegisters::cr2);
    f("cr3", &SystemRegisters::cr3);
    f("cr4", &SystemRegisters::cr4);
    f("cr8", &SystemRegisters::cr8);
    f("efer", &SystemRegisters::efer);
    f("apic_base", &SystemRegisters::apic_base);
  }

  int cpl() const noexcept { return ss.dpl; }
  bool long_mode_active() const noexcept { return (efer & (1U << 10)) != 0; }  // EFER.LMA
  bool code_is_64bit() const noexcept { return long_mode_active() && cs.long_mode; }
};

// Control bits (SDM volume 3, 2.5 and 2.2.1).
inline constexpr std::uint64_t kCr0Pe = 1U << 0;
inline constexpr std::uint64_t kCr0Mp = 1U << 1;
inline constexpr std::uint64_t kCr0Em = 1U << 2;
inline constexpr std::uint64_t kCr0Ts = 1U << 3;
inline constexpr std::uint64_t kCr0Et = 1U << 4;
inline constexpr std::uint64_t kCr0Ne = 1U << 5;
inline constexpr std::uint64_t kCr0Wp = 1U << 16;
inline constexpr std::uint64_t kCr0Pg = 1U << 31;
inline constexpr std::uint64_t kCr4Pse = 1U << 4;
inline constexpr std::uint64_t kCr4Pae = 1U << 5;
inline constexpr std::uint64_t kCr4Osfxsr = 1U << 9;
inline constexpr std::uint64_t kCr4La57 = 1U << 12;
inline constexpr std::uint64_t kCr4Osxsave = 1U << 18;
inline constexpr std::uint64_t kCr4Smep = 1U << 20;
inline constexpr std::uint64_t kCr4Smap = 1U << 21;
inline constexpr std::uint64_t kCr4Pke = 1U << 22;
inline constexpr std::uint64_t kEferSce = 1U << 0;
inline constexpr std::uint64_t kEferLme = 1U << 8;
inline constexpr std::uint64_t kEferLma = 1U << 10;
inline constexpr std::uint64_t kEferNxe = 1U << 11;

// The FPU, SSE and AVX state in the standard (not compacted) XSAVE format; 4096 bytes or as many as
// the host's XCR0 needs.
using XsaveArea = std::vector<std::byte>;

// Exception vectors (SDM volume 3, table 6-1).
enum class Vector : std::uint8_t {
  kDivideError = 0,
  kDebug = 1,
  kNmi = 2,
  kBreakpoint = 3,
  kOverflow = 4,
  kBoundRange = 5,
  kInvalidOpcode = 6,
  kDeviceNotAvailable = 7,
  kDoubleFault = 8,
  kInvalidTss = 10,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kGeneralProtection = 13,
  kPageFault = 14,
  kX87Error = 16,
  kAlignmentCheck = 17,
  kMachineCheck = 18,
  kSimdError = 19,
};

}  // namespace vmm::x86

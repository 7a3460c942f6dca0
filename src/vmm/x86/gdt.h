// Segment descriptors: the global descriptor table and task state segment that a guest starts with.
//
// Source: Intel SDM volume 3, 3.4.5 (descriptors), 8.2 and 8.7 (TSS); "The Linux/x86 Boot
// Protocol", which names the selectors 0x10 and 0x18.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// Width of the code that a segment holds.
enum class CodeWidth : std::uint8_t { k32, k64 };

// Flat segments: base 0, limit 4 GiB, accessed, present.
Segment flat_code(std::uint16_t selector, CodeWidth width, std::uint8_t dpl = 0) noexcept;
Segment flat_data(std::uint16_t selector, std::uint8_t dpl = 0) noexcept;
// A real-mode segment: base selector * 16, limit 64 KiB.
Segment real_code(std::uint16_t selector) noexcept;
Segment real_data(std::uint16_t selector) noexcept;
// A busy 32- or 64-bit TSS (one type number stands for both) of `limit` + 1 bytes at `base`.
Segment busy_tss(std::uint16_t selector, std::uint64_t base, std::uint32_t limit) noexcept;
// The null LDT.
Segment no_ldt() noexcept;

// The eight bytes that describe a segment in a descriptor table. A TSS in long mode takes a second
// entry, which holds bits 63:32 of the base.
std::uint64_t descriptor(const Segment& segment) noexcept;
// The other way round: the segment that a selector of code or data is loaded with.
Segment segment_of(std::uint16_t selector, std::uint64_t descriptor) noexcept;

// Which selectors the table has.
enum class GdtKind : std::uint8_t {
  kLinux32,  // 0x10 code, 0x18 data, 0x20 TSS
  kLinux64,
  kFlat32,  // 0x08 code, 0x10 data, 0x18 TSS, 0x28 data for CPL 3, 0x30 code for CPL 3
  kFlat64,
};

// What a CPU is loaded with after write_gdt.
struct GdtSegments {
  DescriptorTable gdt;
  Segment code;
  Segment data;
  Segment tss;
};

// Writes the table and a TSS to kGdtPage. The TSS holds `stack` as the stack of CPL 0 and no I/O
// permission bitmap. Errors: kOutOfRange when there is no RAM at kGdtPage.
Result<GdtSegments> write_gdt(const GuestMemory& memory, GdtKind kind, std::uint64_t stack);

}  // namespace vmm::x86

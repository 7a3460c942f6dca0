#include "vmm/x86/gdt.h"

#include <array>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// Segment types (SDM volume 3, tables 3-1 and 3-2).
constexpr std::uint8_t kDataWriteAccessed = 3;
constexpr std::uint8_t kCodeReadAccessed = 11;
constexpr std::uint8_t kLdt = 2;
constexpr std::uint8_t kTssBusy = 11;
constexpr std::uint8_t kTssAvailable = 9;

constexpr std::uint32_t kTssSize = 104;
// The TSS stays clear of the table before it.
constexpr std::uint64_t kTssOffset = 0x100;

struct Selectors {
  std::uint16_t code, data, tss;
};

Selectors selectors(GdtKind kind) noexcept {
  const bool linux_boot = kind == GdtKind::kLinux32 || kind == GdtKind::kLinux64;
  return linux_boot ? Selectors{0x10, 0x18, 0x20} : Selectors{0x08, 0x10, 0x18};
}

// The selectors with RPL 3 that flat guests use to go to CPL 3. Data before code, as SYSRET wants.
constexpr std::uint16_t kUserData = 0x28;
constexpr std::uint16_t kUserCode = 0x30;

}  // namespace

Segment flat_code(std::uint16_t selector, CodeWidth width, std::uint8_t dpl) noexcept {
  Segment segment;
  segment.limit = 0xffff'ffff;
  segment.selector = selector;
  segment.type = kCodeReadAccessed;
  segment.dpl = dpl;
  segment.long_mode = width == CodeWidth::k64;
  segment.default_big = width == CodeWidth::k32;
  segment.granularity = true;
  return segment;
}

Segment flat_data(std::uint16_t selector, std::uint8_t dpl) noexcept {
  Segment segment;
  segment.limit = 0xffff'ffff;
  segment.selector = selector;
  segment.type = kDataWriteAccessed;
  segment.dpl = dpl;
  segment.default_big = true;
  segment.granularity = true;
  return segment;
}

Segment real_code(std::uint16_t selector) noexcept {
  Segment segment = real_data(selector);
  segment.type = kCodeReadAccessed;
  return segment;
}

Segment real_data(std::uint16_t selector) noexcept {
  Segment segment;
  segment.base = std::uint64_t{selector} << 4;
  segment.selector = selector;
  segment.type = kDataWriteAccessed;
  return segment;
}

Segment busy_tss(std::uint16_t selector, std::uint64_t base, std::uint32_t limit) noexcept {
  Segment segment;
  segment.base = base;
  segment.limit = limit;
  segment.selector = selector;
  segment.type = kTssBusy;
  segment.code_or_data = false;
  return segment;
}

Segment no_ldt() noexcept {
  Segment segment;
  segment.type = kLdt;
  segment.code_or_data = false;
  segment.present = false;
  segment.unusable = true;
  return segment;
}

std::uint64_t descriptor(const Segment& segment) noexcept {
  const auto bit = [](bool set, unsigned position) { return std::uint64_t{set} << position; };
  const std::uint64_t limit = segment.granularity ? segment.limit >> 12 : segment.limit;
  const std::uint64_t base = segment.base;
  return (limit & 0xffff) | (base & 0xff'ffff) << 16 | std::uint64_t{segment.type} << 40 |
         bit(segment.code_or_data, 44) | std::uint64_t{segment.dpl} << 45 |
         bit(segment.present, 47) | (limit >> 16 & 0xf) << 48 | bit(segment.available, 52) |
         bit(segment.long_mode, 53) | bit(segment.default_big, 54) | bit(segment.granularity, 55) |
         (base >> 24 & 0xff) << 56;
}

Segment segment_of(std::uint16_t selector, std::uint64_t descriptor) noexcept {
  const auto bit = [descriptor](unsigned position) { return (descriptor >> position & 1) != 0; };
  Segment s;
  s.selector = selector;
  s.base = (descriptor >> 16 & 0xff'ffff) | (descriptor >> 56) << 24;
  s.type = descriptor >> 40 & 0xf;
  s.code_or_data = bit(44);
  s.dpl = descriptor >> 45 & 3;
  s.present = bit(47);
  s.available = bit(52);
  s.long_mode = bit(53);
  s.default_big = bit(54);
  s.granularity = bit(55);
  s.limit = static_cast<std::uint32_t>((descriptor & 0xffff) | (descriptor >> 32 & 0xf'0000));
  if (s.granularity) s.limit = s.limit << 12 | 0xfff;
  return s;
}

Result<GdtSegments> write_gdt(const GuestMemory& memory, GdtKind kind, std::uint64_t stack) {
  const bool long_mode = kind == GdtKind::kLinux64 || kind == GdtKind::kFlat64;
  const bool flat = kind == GdtKind::kFlat32 || kind == GdtKind::kFlat64;
  const CodeWidth width = long_mode ? CodeWidth::k64 : CodeWidth::k32;
  const Selectors use = selectors(kind);
  const std::uint64_t tss_base = kGdtPage.base().value + kTssOffset;

  GdtSegments result;
  result.code = flat_code(use.code, width);
  result.data = flat_data(use.data);
  result.tss = busy_tss(use.tss, tss_base, kTssSize - 1);

  // The table's TSS is free, so that a guest may load it again; the CPU's own copy must be busy.
  Segment tss_entry = result.tss;
  tss_entry.type = kTssAvailable;
  std::array<Le64, 7> table{};
  table[use.code / 8U] = descriptor(result.code);
  table[use.data / 8U] = descriptor(result.data);
  table[use.tss / 8U] = descriptor(tss_entry);
  if (flat) {
    table[kUserData / 8U] = descriptor(flat_data(kUserData, 3));
    table[kUserCode / 8U] = descriptor(flat_code(kUserCode, width, 3));
  }
  result.gdt = {kGdtPage.base().value, sizeof(table) - 1};

  std::array<std::byte, kTssSize> tss{};
  const std::span bytes(tss);
  if (long_mode) {
    store_le(bytes.subspan(4, 8), stack);   // RSP0
    store_le(bytes.subspan(36, 8), stack);  // IST1
  } else {
    store_le(bytes.subspan(4, 4), stack);     // ESP0
    store_le(bytes.subspan(8, 4), use.data);  // SS0
  }
  store_le(bytes.subspan(102, 2), kTssSize);  // I/O map base past the limit: no bitmap

  GuestWriter writer(memory, kGdtPage);
  VMM_TRY(writer.put_value(table));
  VMM_TRY(writer.fill(kTssOffset - sizeof(table), std::byte{0}));
  VMM_TRY(writer.put(tss));
  return result;
}

}  // namespace vmm::x86

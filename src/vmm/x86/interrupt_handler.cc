#include "vmm/x86/interrupt_handler.h"

#include <array>
#include <span>

#include "base/le.h"
#include "vmm/linear_memory.h"

namespace vmm::x86 {
namespace {

// Types of gates (SDM volume 3, table 3-2): 16-bit ones have offsets of 16 bits.
constexpr unsigned kInterrupt16 = 6, kTrap16 = 7, kInterrupt32 = 14, kTrap32 = 15;

struct Tables {
  const GuestMemory& memory;
  const SystemRegisters& system;
  std::uint64_t rflags;

  // `size` bytes, 8 at most, as a number.
  std::optional<std::uint64_t> read(std::uint64_t at, std::size_t size) const {
    std::array<std::byte, 8> bytes{};
    const auto wanted = std::span(bytes).first(size);
    if (!read_linear(memory, system, rflags, Gva(at), wanted)) return std::nullopt;
    return load_le(wanted);
  }
};

std::optional<std::uint64_t> real_mode(const Tables& tables, std::uint8_t vector) {
  const auto entry = tables.read(tables.system.idt.base + std::uint64_t{4} * vector, 4);
  if (!entry) return std::nullopt;
  return (*entry >> 16) * 16 + (*entry & 0xffff);
}

std::optional<std::uint64_t> long_mode(const Tables& tables, std::uint8_t vector) {
  const std::uint64_t at = tables.system.idt.base + std::uint64_t{16} * vector;
  const auto low = tables.read(at, 8);
  const auto high = tables.read(at + 8, 8);
  if (!low || !high) return std::nullopt;
  return (*low & 0xffff) | (*low >> 32 & 0xffff0000) | *high << 32;
}

// Of a segment descriptor (SDM volume 3, figure 3-8).
std::optional<std::uint64_t> segment_base(const Tables& tables, std::uint64_t selector) {
  constexpr std::uint64_t kLocal = 4;
  const std::uint64_t table =
      (selector & kLocal) != 0 ? tables.system.ldt.base : tables.system.gdt.base;
  const auto descriptor = tables.read(table + (selector & 0xfff8), 8);
  if (!descriptor) return std::nullopt;
  return (*descriptor >> 16 & 0xffffff) | *descriptor >> 56 << 24;
}

std::optional<std::uint64_t> protected_mode(const Tables& tables, std::uint8_t vector) {
  const auto gate = tables.read(tables.system.idt.base + std::uint64_t{8} * vector, 8);
  if (!gate) return std::nullopt;
  const auto base = segment_base(tables, *gate >> 16 & 0xffff);
  if (!base) return std::nullopt;
  const std::uint64_t low = *gate & 0xffff;
  switch (*gate >> 40 & 0xf) {
    case kInterrupt16:
    case kTrap16:
      return (*base + low) & 0xffffffff;
    case kInterrupt32:
    case kTrap32:
      return (*base + (low | (*gate >> 32 & 0xffff0000))) & 0xffffffff;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<std::uint64_t> interrupt_handler(const GuestMemory& memory,
                                               const SystemRegisters& system, std::uint64_t rflags,
                                               std::uint8_t vector) {
  const Tables tables{memory, system, rflags};
  if ((system.cr0 & kCr0Pe) == 0) return real_mode(tables, vector);
  return system.long_mode_active() ? long_mode(tables, vector) : protected_mode(tables, vector);
}

}  // namespace vmm::x86

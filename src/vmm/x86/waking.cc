#include "vmm/x86/waking.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/le.h"
#include "vmm/x86/gdt.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// Of the FACS.
constexpr std::size_t kVectorAt = 12, kWideVectorAt = 24, kEnd = 32;
constexpr std::string_view kSignature = "FACS";

bool is_facs(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < kSignature.size(); ++i) {
    if (std::to_integer<char>(bytes[i]) != kSignature[i]) return false;
  }
  return true;
}

EntryState at_reset() {
  EntryState state = after_init({});
  state.system.apic_base = kApicBaseReset;
  return state;
}

EntryState in_real_mode(std::uint32_t vector) {
  EntryState state = at_reset();
  state.system.cs = real_code(static_cast<std::uint16_t>(vector >> 4));
  state.system.idt = {0, 0x3ff};  // the interrupt vector table
  state.registers.rip = vector & 0xf;
  return state;
}

// No descriptor table has these segments: the guest loads its own before it loads any of them anew.
EntryState in_protected_mode(std::uint32_t vector) {
  constexpr std::uint16_t kCode = 0x08, kData = 0x10;
  EntryState state = at_reset();
  SystemRegisters& system = state.system;
  system.cs = flat_code(kCode, CodeWidth::k32);
  system.ds = system.es = system.fs = system.gs = system.ss = flat_data(kData);
  system.gdt = system.idt = {0, 0};
  system.cr0 |= kCr0Pe;
  state.registers.rip = vector;
  return state;
}

}  // namespace

std::optional<EntryState> waking_entry(const GuestMemory& memory) {
  std::array<std::byte, kEnd> bytes{};
  if (!memory.read(kAcpiNvs.base(), std::span(bytes)) || !is_facs(bytes)) return std::nullopt;
  const std::span<const std::byte> facs(bytes);
  const std::uint64_t wide = load_le(facs.subspan<kWideVectorAt, 8>());
  const std::uint64_t vector = load_le(facs.subspan<kVectorAt, 4>());
  if (wide > UINT32_MAX) return std::nullopt;
  if (wide != 0) return in_protected_mode(static_cast<std::uint32_t>(wide));
  if (vector == 0) return std::nullopt;
  return in_real_mode(static_cast<std::uint32_t>(vector));
}

}  // namespace vmm::x86

// The registers of a local APIC (Intel SDM volume 3, 11.4 to 11.8), whoever keeps them.
#pragma once

#include <array>
#include <cstdint>

namespace vmm::x86 {

// As the guest's own reads in xAPIC mode show them. IA32_APIC_BASE is in SystemRegisters.
struct LapicRegisters {
  // A set of vectors: bit v % 32 of word v / 32.
  using Vectors = std::array<std::uint32_t, 8>;

  std::uint8_t id = 0;        // of 8 bits
  std::uint32_t version = 0;  // read-only
  std::uint8_t tpr = 0;       // task priority; its upper half is CR8
  std::uint8_t ppr = 0;       // read-only: follows from TPR and ISR
  std::uint32_t ldr = 0, dfr = 0xffff'ffff;
  std::uint32_t svr = 0xff;
  Vectors isr{}, tmr{}, irr{};  // in service, level-triggered, requested
  std::uint32_t esr = 0;
  std::uint64_t icr = 0;
  // The local vector table.
  std::uint32_t lvt_timer = 0x1'0000, lvt_thermal = 0x1'0000, lvt_performance = 0x1'0000;
  std::uint32_t lvt_lint0 = 0x1'0000, lvt_lint1 = 0x1'0000, lvt_error = 0x1'0000;
  // The timer. In TSC-deadline mode both counts are 0, and IA32_TSC_DEADLINE says when.
  std::uint32_t initial_count = 0;
  std::uint32_t current_count = 0;
  std::uint32_t divide = 0;  // the divide configuration register: bits 0, 1 and 3
  std::uint64_t tsc_deadline = 0;

  bool operator==(const LapicRegisters&) const = default;

  // The local vector table in the order of its registers.
  static constexpr std::array<std::uint32_t LapicRegisters::*, 6> lvt() noexcept {
    return {&LapicRegisters::lvt_timer,       &LapicRegisters::lvt_thermal,
            &LapicRegisters::lvt_performance, &LapicRegisters::lvt_lint0,
            &LapicRegisters::lvt_lint1,       &LapicRegisters::lvt_error};
  }

  static constexpr bool has(const Vectors& set, std::uint8_t vector) noexcept {
    return (set[vector / 32] >> vector % 32 & 1) != 0;
  }
  static constexpr void put(Vectors& set, std::uint8_t vector, bool value) noexcept {
    const std::uint32_t bit = std::uint32_t{1} << vector % 32;
    set[vector / 32] = value ? set[vector / 32] | bit : set[vector / 32] & ~bit;
  }
};

}  // namespace vmm::x86

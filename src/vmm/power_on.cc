#include "vmm/power_on.h"

#include <algorithm>
#include <array>

#include "base/le.h"
#include "devices/lapic.h"
#include "vmm/kvm/lapic_page.h"
#include "vmm/kvm/lapic_register_page.h"
#include "vmm/x86/entry_state.h"
#include "vmm/x86/msr.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

struct MsrRange {
  std::uint32_t first, last;
};

// What software sets up for itself: it is 0 after a reset (SDM volume 3, table 10-1; KVM's own:
// Documentation/virt/kvm/x86/msr.rst). The others are the processor's and the firmware's.
bool is_cleared(std::uint32_t index) {
  constexpr std::array kCleared{
      MsrRange{0x11, 0x12},                // KVM's clock, by its older numbers
      MsrRange{0x48, 0x48},                // SPEC_CTRL
      MsrRange{0x174, 0x176},              // SYSENTER_CS, _ESP, _EIP
      MsrRange{0x1d9, 0x1d9},              // DEBUGCTL
      MsrRange{0x6e0, 0x6e0},              // TSC_DEADLINE
      MsrRange{0xda0, 0xda0},              // XSS
      MsrRange{0x4b56'4d00, 0x4b56'4d04},  // KVM's clock, asynchronous faults, steal time, EOI
      MsrRange{0x4b56'4d06, 0x4b56'4d06},  // the interrupt of asynchronous faults
      MsrRange{0xc000'0081, 0xc000'0084},  // STAR, LSTAR, CSTAR, SFMASK
      MsrRange{0xc000'0102, 0xc000'0103},  // KERNEL_GS_BASE, TSC_AUX
  };
  return std::any_of(kCleared.begin(), kCleared.end(), [index](const MsrRange& range) {
    return range.first <= index && index <= range.last;
  });
}

// Not written, the TSCs stay in step with each other.
bool counts_on(std::uint32_t index) { return index == x86::kMsrTsc || index == x86::kMsrTscAdjust; }

void reset_msrs(std::vector<kvm::Msr>& msrs) {
  std::erase_if(msrs, [](const kvm::Msr& msr) { return counts_on(msr.index); });
  const std::vector<x86::MsrValue> firmware = x86::boot_msrs();
  for (kvm::Msr& msr : msrs) {
    if (is_cleared(msr.index)) msr.value = 0;
    for (const x86::MsrValue& set : firmware) {
      if (set.index == msr.index) msr.value = set.value;
    }
  }
}

// FPU and SSE after FNINIT and a reset; a header of zeros says that all else is in its first state.
void reset_xsave(std::span<std::byte> area) {
  constexpr std::size_t kFcwAt = 0, kMxcsrAt = 24, kLegacySize = 512;
  constexpr std::uint64_t kFcw = 0x37f, kMxcsr = 0x1f80;
  std::fill(area.begin(), area.end(), std::byte{0});
  if (area.size() < kLegacySize) return;
  store_le(area.subspan(kFcwAt, 2), kFcw);
  store_le(area.subspan(kMxcsrAt, 4), kMxcsr);
}

// With the PIC's interrupts let through to the first CPU, as KVM's own local APICs start.
x86::LapicRegisters lapic_at_reset(std::uint32_t id) {
  constexpr std::uint32_t kExtInt = 7U << 8;
  x86::LapicRegisters registers{.id = static_cast<std::uint8_t>(id)};
  if (id == 0) registers.lvt_lint0 = kExtInt;
  return registers;
}

}  // namespace

void power_on(kvm::VcpuState& state, std::uint32_t id, IrqchipMode irqchip) {
  const x86::EntryState reset = x86::after_init({});
  state.registers = reset.registers;
  state.system = reset.system;
  state.system.apic_base = id == 0 ? x86::kApicBaseReset : x86::kApicBaseReset & ~Lapic::kBaseBsp;
  reset_xsave(state.xsave.bytes);
  state.xcr0 = 1;
  state.dr = {};
  state.dr6 = 0xffff'0ff0;
  state.dr7 = 0x400;
  state.events = {};
  reset_msrs(state.msrs);
  const bool waits = id != 0 && irqchip != IrqchipMode::kUser;
  state.mp_state =
      static_cast<std::uint8_t>(waits ? kvm::MpState::kUninitialized : kvm::MpState::kRunnable);
  if (!state.lapic) return;
  kvm::LapicRegisterPage page(std::move(state.lapic->bytes));
  kvm::write_registers(page, lapic_at_reset(id));
  state.lapic->bytes = std::move(page).take();
}

}  // namespace vmm

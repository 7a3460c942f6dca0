#include "vmm/debug/cpu_debug.h"

#include <algorithm>
#include <utility>

namespace vmm::debug {

Result<void> CpuDebug::apply(const kvm::VcpuFd& cpu) {
  kvm::GuestDebug debug;
  if (interpreter_steps_) {
    debug.single_step = true;
    return apply(cpu, debug);
  }
  if (tape_.active()) {
    debug.single_step = handlers_.empty();
    for (std::size_t i = 0; i < std::min(handlers_.size(), kSlots); ++i) {
      debug.slots[i] = kvm::DebugSlot{.address = handlers_[i]};
    }
    return apply(cpu, debug);
  }
  debug.single_step = quirk_.single_step || stepping();
  debug.block_interrupts = stepping() && wish_.block_interrupts;
  debug.software_breakpoints = wish_.software_breakpoints;
  for (std::size_t i = 0; i < std::min(wish_.slots.size(), room()); ++i) {
    if (over_ && wish_.slots[i].kind == kvm::DebugSlot::Kind::kExecute) continue;
    debug.slots[i] = wish_.slots[i];
  }
  if (quirk_.hardware_breakpoint) {
    debug.slots[kSlots - 1] = kvm::DebugSlot{.address = *quirk_.hardware_breakpoint};
  }
  return apply(cpu, debug);
}

Result<void> CpuDebug::apply(const kvm::VcpuFd& cpu, const kvm::GuestDebug& debug) {
  if (debug == applied_) return {};
  VMM_TRY(cpu.set_guest_debug(debug));
  applied_ = debug;
  return {};
}

Result<void> CpuDebug::set_quirk(const kvm::VcpuFd& cpu, const kvm::GuestDebug& wish) {
  quirk_ = wish;
  return apply(cpu);
}

Result<void> CpuDebug::set_wish(const kvm::VcpuFd& cpu, CpuWish wish) {
  wish_ = std::move(wish);
  over_ = false;
  // Each stop, and each visit of a breakpoint that does not matter, asks for all registers.
  const bool asks = wish_.step || wish_.planted || !wish_.slots.empty();
  if (!tape_.active() && cpu.shares_registers()) {
    cpu.share_system_registers(wish_.attached && asks);
  }
  return apply(cpu);
}

bool CpuDebug::has_breakpoint(std::uint64_t address) const noexcept {
  if (over_) return false;
  return std::any_of(wish_.slots.begin(), wish_.slots.end(), [address](const kvm::DebugSlot& slot) {
    return slot.kind == kvm::DebugSlot::Kind::kExecute && slot.address == address;
  });
}

const kvm::DebugSlot* CpuDebug::watchpoint(std::uint64_t dr6) const noexcept {
  for (std::size_t i = 0; i < std::min(wish_.slots.size(), kSlots); ++i) {
    if ((dr6 >> i & 1) != 0 && wish_.slots[i].kind != kvm::DebugSlot::Kind::kExecute) {
      return &wish_.slots[i];
    }
  }
  return nullptr;
}

}  // namespace vmm::debug

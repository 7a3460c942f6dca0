// Debug registers: the guest's own, and what KVM is to stop it for.
#include "vmm/kvm/vcpu_fd.h"

#include <algorithm>

#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {

Result<x86::DebugRegisters> VcpuFd::debug_registers() const {
  kvm_debugregs k{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &k, "KVM_GET_DEBUGREGS"));
  x86::DebugRegisters registers;
  std::copy_n(std::begin(k.db), registers.address.size(), registers.address.begin());
  registers.dr6 = k.dr6;
  registers.dr7 = k.dr7;
  return registers;
}

Result<void> VcpuFd::set_debug_registers(const x86::DebugRegisters& registers) const {
  kvm_debugregs k{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &k, "KVM_GET_DEBUGREGS"));
  std::copy_n(registers.address.begin(), registers.address.size(), std::begin(k.db));
  k.dr6 = registers.dr6;
  k.dr7 = registers.dr7;
  return set(KVM_SET_DEBUGREGS, &k, "KVM_SET_DEBUGREGS");
}

Result<std::uint64_t> VcpuFd::dr7() const {
  kvm_debugregs debug{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &debug, "KVM_GET_DEBUGREGS"));
  return debug.dr7;
}

Result<void> VcpuFd::raise_dr6(std::uint64_t bits) const {
  kvm_debugregs debug{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &debug, "KVM_GET_DEBUGREGS"));
  debug.dr6 |= bits;
  return set(KVM_SET_DEBUGREGS, &debug, "KVM_SET_DEBUGREGS");
}

namespace {

// Slot `n` in DR0 to DR3 and DR7: L and G, R/W and LEN (SDM volume 3, 17.2.4).
void arm_slot(kvm_guest_debug& k, std::size_t n, const DebugSlot& slot) {
  k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
  k.arch.debugreg[n] = slot.address;
  const std::uint64_t access = slot.kind == DebugSlot::Kind::kExecute ? 0
                               : slot.kind == DebugSlot::Kind::kWrite ? 1
                                                                      : 3;
  const std::uint64_t length = slot.kind == DebugSlot::Kind::kExecute || slot.size == 1 ? 0
                               : slot.size == 2                                         ? 1
                               : slot.size == 4                                         ? 3
                                                                                        : 2;
  k.arch.debugreg[7] |= 0x400 | 3ULL << (2 * n) | (access | length << 2) << (16 + 4 * n);
}

}  // namespace

Result<void> VcpuFd::set_guest_debug(const GuestDebug& debug) const {
  kvm_guest_debug k{};
  if (debug.single_step) k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  if (debug.single_step && debug.block_interrupts) k.control |= KVM_GUESTDBG_BLOCKIRQ;
  if (debug.software_breakpoints) k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  for (std::size_t n = 0; n < debug.slots.size(); ++n) {
    if (debug.slots[n]) arm_slot(k, n, *debug.slots[n]);
  }
  if (debug.hardware_breakpoint) {
    k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    k.arch.debugreg[0] = *debug.hardware_breakpoint;
    k.arch.debugreg[7] =
        0x402 | 0x1;  // G0 and L0: execution, one byte; bit 10 is always set (SDM volume 3, 17.2.4)
  }
  if (debug.write_watchpoint) {
    k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    k.arch.debugreg[1] = *debug.write_watchpoint;
    // G1 and L1; R/W1 = writes only, LEN1 = 8 bytes (SDM volume 3, 17.2.4).
    k.arch.debugreg[7] |= 0x400 | 0xc | (0x1ULL << 20) | (0x2ULL << 22);
  }
  return set(KVM_SET_GUEST_DEBUG, &k, "KVM_SET_GUEST_DEBUG");
}

}  // namespace vmm::kvm

#include "vmm/kvm/decode_exit.h"

#include <linux/kvm.h>

#include <algorithm>

namespace vmm::kvm {
namespace {

[[gnu::hot]] VcpuExit decode_pio(kvm_run* run) {
  PioExit exit;
  exit.port = run->io.port;
  exit.width = run->io.size;
  exit.count = run->io.count;
  exit.is_write = run->io.direction == KVM_EXIT_IO_OUT;
  exit.data = {reinterpret_cast<std::byte*>(run) + run->io.data_offset,
               std::size_t{run->io.size} * run->io.count};
  return exit;
}

[[gnu::hot]] VcpuExit decode_mmio(kvm_run* run) {
  MmioExit exit;
  exit.address = Gpa(run->mmio.phys_addr);
  exit.is_write = run->mmio.is_write != 0;
  exit.data = {reinterpret_cast<std::byte*>(run->mmio.data),
               std::min<std::size_t>(run->mmio.len, sizeof run->mmio.data)};
  return exit;
}

VcpuExit decode_internal_error(const kvm_run* run) {
  if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
    EmulationFailureExit exit;
    if (run->emulation_failure.ndata >= 1 + (sizeof exit.bytes + 1 + 7) / 8 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
      exit.size = std::min<std::uint8_t>(run->emulation_failure.insn_size, sizeof exit.bytes);
      std::copy_n(run->emulation_failure.insn_bytes, sizeof exit.bytes, exit.bytes.begin());
    }
    return exit;
  }
  InternalErrorExit exit;
  exit.suberror = run->internal.suberror;
  exit.words = std::min(run->internal.ndata, static_cast<std::uint32_t>(exit.data.size()));
  static_assert(sizeof run->internal.data == sizeof exit.data);
  std::copy_n(run->internal.data, exit.words, exit.data.begin());
  return exit;
}

VcpuExit decode_msr(const kvm_run* run, bool is_write) {
  return MsrExit{run->msr.index, is_write, (run->msr.reason & KVM_MSR_EXIT_REASON_FILTER) != 0,
                 is_write ? run->msr.data : 0};
}

}  // namespace

[[gnu::hot]] VcpuExit decode_exit(kvm_run* run) {
  // The two that make a guest slow do without the switch's table.
  if (run->exit_reason == KVM_EXIT_IO) return decode_pio(run);
  if (run->exit_reason == KVM_EXIT_MMIO) return decode_mmio(run);
  switch (run->exit_reason) {
    case KVM_EXIT_HLT:
      return HltExit{};
    case KVM_EXIT_SHUTDOWN:
      return ShutdownExit{};
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return IrqWindowExit{};
    case KVM_EXIT_SET_TPR:
      return TprExit{};
    case KVM_EXIT_INTR:
      return InterruptedExit{};
    case KVM_EXIT_SYSTEM_EVENT:
      return SystemEventExit{run->system_event.type};
    case KVM_EXIT_DEBUG:
      return DebugTrapExit{run->debug.arch.exception, run->debug.arch.pc, run->debug.arch.dr6,
                           run->debug.arch.dr7};
    case KVM_EXIT_FAIL_ENTRY:
      return FailEntryExit{run->fail_entry.hardware_entry_failure_reason};
    case KVM_EXIT_INTERNAL_ERROR:
      return decode_internal_error(run);
    case KVM_EXIT_IOAPIC_EOI:
      return IoapicEoiExit{run->eoi.vector};
    case KVM_EXIT_X86_RDMSR:
      return decode_msr(run, false);
    case KVM_EXIT_X86_WRMSR:
      return decode_msr(run, true);
    default:
      return UnknownExit{run->exit_reason};
  }
}

}  // namespace vmm::kvm

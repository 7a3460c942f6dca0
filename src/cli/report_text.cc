#include "cli/report_text.h"

#include <fmt/format.h>

namespace vmm::cli {
namespace {

std::string_view headline(StopReason reason) {
  switch (reason) {
    case StopReason::kPowerOff:
      return "guest powered off";
    case StopReason::kReset:
      return "guest reset";
    case StopReason::kGuestPanic:
      return "guest panicked";
    case StopReason::kWatchdog:
      return "guest stopped by its watchdog";
    case StopReason::kHalted:
      return "guest halted for good";
    case StopReason::kTripleFault:
      return "guest ended in a triple fault";
    case StopReason::kDebugExit:
      return "guest ended through the debug-exit port";
    case StopReason::kEmulationFailure:
      return "guest ended at an instruction that could not be emulated";
    case StopReason::kEntryFailure:
      return "the processor refused the guest's state";
    case StopReason::kInternalError:
      return "KVM reported an internal error";
    case StopReason::kMemoryFault:
      return "guest lost a part of its memory";
    case StopReason::kDeadline:
      return "guest ended by --timeout";
    case StopReason::kCancelled:
      return "interrupted";
    case StopReason::kCondition:
      return "guest reached what was waited for";
  }
  return "guest ended";
}

// "pio 120, mmio 3"
template <typename Map>
std::string counts(const Map& map) {
  std::string text;
  for (const auto& [name, count] : map) {
    if (count != 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::string end_text(const StopInfo& stop, std::string_view quit_why) {
  std::string line(headline(stop.reason));
  switch (stop.reason) {
    case StopReason::kCancelled:
      return quit_why.empty() ? line : fmt::format("{}: {}", line, quit_why);
    case StopReason::kDebugExit:
      line += fmt::format(" with the value {:#x}", stop.value);
      break;
    case StopReason::kPowerOff:
    case StopReason::kReset:
    case StopReason::kWatchdog:
    case StopReason::kDeadline:
    case StopReason::kCondition:
      return line;
    case StopReason::kGuestPanic:
    case StopReason::kHalted:
    case StopReason::kTripleFault:
    case StopReason::kEmulationFailure:
    case StopReason::kEntryFailure:
    case StopReason::kInternalError:
    case StopReason::kMemoryFault:
      break;
  }
  if (!stop.detail.empty()) line += fmt::format(": {}", stop.detail);
  return line;
}

std::string statistics_text(const VmStats& vm, const ConsoleStats& console) {
  std::string text = fmt::format("vmm: exits: {}\n", counts(vm.exits));
  text += fmt::format("vmm: unclaimed accesses {}, kicks {}, held ticks {}\n", vm.unclaimed,
                      vm.kicks, vm.held_ticks);
  text +=
      fmt::format("vmm: completed instructions {} ({}), {} more executed with them\n",
                  vm.completed_instructions, counts(vm.completed_by_mnemonic), vm.executed_ahead);
  text += fmt::format("vmm: serial port: {} bytes out, {} lost, {} bytes in, {} lost\n",
                      console.output_bytes, console.output_dropped, console.input_bytes,
                      console.input_dropped);
  return text;
}

std::string processor_text(std::uint32_t id, const x86::Registers& registers,
                           const x86::SystemRegisters& system) {
  const auto& r = registers.gpr;
  std::string text = fmt::format(
      "vmm: CPU {}: cs:rip {:04x}:{:016x} rflags {:08x} cpl {} cr0 {:x} cr3 {:x} cr4 {:x} efer "
      "{:x}\n",
      id, system.cs.selector, registers.rip, registers.rflags, system.cpl(), system.cr0, system.cr3,
      system.cr4, system.efer);
  text += fmt::format("     rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n", r[x86::kRax],
                      r[x86::kRbx], r[x86::kRcx], r[x86::kRdx]);
  text += fmt::format("     rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n", r[x86::kRsi],
                      r[x86::kRdi], r[x86::kRbp], r[x86::kRsp]);
  text += fmt::format("     r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n", r[x86::kR8],
                      r[x86::kR9], r[x86::kR10], r[x86::kR11]);
  text += fmt::format("     r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n", r[x86::kR12],
                      r[x86::kR13], r[x86::kR14], r[x86::kR15]);
  return text;
}

}  // namespace vmm::cli

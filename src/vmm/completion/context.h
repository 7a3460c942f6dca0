// The state of one completion: the CPU's registers, read once, and what a step may change.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/page_walk.h"
#include "vmm/completion/cpu.h"
#include "vmm/completion/executor.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"
#include "vmm/completion/xsave_layout.h"

namespace vmm::completion {

// Lives for one call of Completer::complete(). Steps change `registers`; the completer writes them
// back when the instruction is finished. Everything else is written to the CPU at once.
class Context {
 public:
  // What does not change from one completion to the next; borrowed.
  struct Surroundings {
    const GuestMemory* memory = nullptr;
    MmioBus* bus = nullptr;
    Executor* executor = nullptr;
    const XsaveLayout* xsave_layout = nullptr;
    std::uint8_t physical_bits = 52;
  };
  static Result<Context> load(Cpu& cpu, const Surroundings& surroundings);

  Cpu& cpu() const noexcept { return *cpu_; }
  const GuestMemory& memory() const noexcept { return *around_.memory; }
  MmioBus& bus() const noexcept { return *around_.bus; }
  Executor* executor() const noexcept { return around_.executor; }
  const XsaveLayout& xsave_layout() const noexcept { return *around_.xsave_layout; }

  x86::Registers registers;
  x86::SystemRegisters system;
  PagingContext paging;

  int cpl() const noexcept { return paging.cpl; }
  bool cr0(std::uint64_t bit) const noexcept { return (system.cr0 & bit) != 0; }
  bool cr4(std::uint64_t bit) const noexcept { return (system.cr4 & bit) != 0; }
  bool protected_mode() const noexcept { return cr0(x86::kCr0Pe); }
  // Misaligned data accesses raise #AC (SDM volume 3, 6.15, interrupt 17).
  bool alignment_checked() const noexcept;

  // The guest's FPU, SSE and AVX state: read at the first call, kept for the rest.
  Result<x86::XsaveArea*> xsave();
  Result<std::uint64_t> xcr0();
  // The state that xsave() returned has changed: flush() writes it to the CPU.
  void mark_xsave_changed() noexcept { xsave_changed_ = true; }
  // Before the completion ends.
  Result<void> flush();

 private:
  Context(Cpu& cpu, const Surroundings& surroundings) noexcept
      : cpu_(&cpu), around_(surroundings) {}

  Cpu* cpu_;
  Surroundings around_;
  std::optional<x86::XsaveArea> xsave_;
  bool xsave_changed_ = false;
  std::optional<std::uint64_t> xcr0_;
};

}  // namespace vmm::completion

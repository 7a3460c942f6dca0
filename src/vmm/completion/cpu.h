// What instruction completion needs of a CPU and of the machine around it, free of KVM: a test puts
// plain structures behind these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "memory/address.h"
#include "vmm/x86/registers.h"

namespace vmm::completion {

// An exception or software interrupt that the guest takes next.
struct Event {
  std::uint8_t vector = 0;
  std::optional<std::uint32_t> error_code{};
  std::optional<std::uint64_t> cr2{};  // of #PF: the address to put into CR2
  std::uint64_t dr6 = 0;               // of #DB: bits to set in DR6
  bool software_interrupt = false;     // INT n: any vector; otherwise an exception, 0 to 31
};

// One virtual CPU that stands between two instructions. Used on its own thread. Errors are host
// failures only.
class Cpu {
 public:
  virtual ~Cpu() = default;

  virtual Result<x86::Registers> registers() = 0;
  virtual Result<void> set_registers(const x86::Registers& registers) = 0;
  virtual Result<x86::SystemRegisters> system_registers() = 0;
  virtual Result<void> set_system_registers(const x86::SystemRegisters& registers) = 0;

  // The standard (not compacted) format.
  virtual Result<x86::XsaveArea> xsave() = 0;
  virtual Result<void> set_xsave(const x86::XsaveArea& area) = 0;
  virtual Result<std::uint64_t> xcr0() = 0;
  // False when the value is not one that the CPU can have: the guest gets #GP.
  virtual Result<bool> set_xcr0(std::uint64_t value) = 0;

  // Nothing when the CPU does not have this MSR.
  virtual Result<std::optional<std::uint64_t>> msr(std::uint32_t index) = 0;
  virtual Result<bool> set_msr(std::uint32_t index, std::uint64_t value) = 0;

  // Queued for delivery when the CPU runs next, with the RIP that set_registers() left.
  virtual Result<void> inject(const Event& event) = 0;
  // The blocking of interrupts for one instruction after STI or MOV SS is over.
  virtual Result<void> end_interrupt_shadow() = 0;
  // The blocking of NMIs, which lasts until IRET, is over.
  virtual Result<void> end_nmi_blocking() = 0;
  // Whether the guest has armed a breakpoint in DR7.
  virtual Result<bool> breakpoints_armed() = 0;
  // Forgets every cached translation, as INVPCID of type 2 does.
  virtual Result<void> flush_tlb() = 0;
};

// Guest-physical addresses that are not RAM. An access is 1, 2, 4 or 8 bytes and naturally aligned.
class MmioBus {
 public:
  virtual ~MmioBus() = default;
  // `data` arrives filled with 0xff, what an empty bus reads.
  virtual void read(Gpa address, std::span<std::byte> data) = 0;
  virtual void write(Gpa address, std::span<const std::byte> data) = 0;
  // RAM was read for the instruction, as its data: for whoever watches.
  virtual void saw_read(Gpa /*address*/, std::uint32_t /*size*/) {}
};

}  // namespace vmm::completion

// Executes a guest's 64-bit kernel code in this process, on a host whose KVM interprets such code
// at a million instructions a second (quirk interpret-kernel, docs/interpreter.md).
//
// What is executed here is what kernels consist of: integer code on plain RAM, and the way into and
// out of the kernel. Everything else, and everything at other privilege levels, is KVM's: the CPU
// is put into KVM as it stands, KVM executes that one instruction, or the user's code, and hands
// the CPU back.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>

#include "base/owned_counter.h"
#include "base/result.h"
#include "vmm/interpreter/block.h"
#include "vmm/interpreter/cpu.h"
#include "vmm/interpreter/line_table.h"
#include "vmm/interpreter/table_map.h"
#include "vmm/interpreter/tlb.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::interpreter {

// What has to happen next.
enum class Outcome : std::uint8_t {
  kEnter,      // KVM_RUN, for as long as it takes: not 64-bit code at CPL 0, or HLT
  kEnterStep,  // KVM_RUN, for one instruction
  kLook,       // the deadline has come, or an interrupt can be taken: look at the interrupt chips
  kDevice,     // handle device_exit(), then finish_access()
};

// For one vCPU, on its thread.
class Interpreter final : HostState {
 public:
  // All are borrowed.
  // `physical_bits` is the guest's MAXPHYADDR; `device_msr` says which MSRs are answered by who
  // handles exits; `no_hypercalls`, that VMCALL is not KVM's (quirk hide-hypercalls).
  Interpreter(std::uint32_t cpu, const GuestMemory& memory, TableMap& tables, SharedLines& lines,
              std::uint8_t physical_bits, bool (*device_msr)(std::uint32_t index),
              bool no_hypercalls);

  // Executes until something else has to happen. The CPU's state is taken from KVM, and put there
  // before this returns. An interrupt that KVM holds for it is delivered here. Errors: host
  // failures.
  Result<Outcome> run(kvm::VcpuFd& cpu,
                      std::optional<std::chrono::steady_clock::time_point> deadline);
  // The exit that an access to a device makes: as KVM's, a write has been executed by then, and a
  // read waits for its answer. Valid until the next run().
  VcpuExit& device_exit() noexcept { return device_exit_; }
  // It has been handled; `msr` is the answer if it was an MSR's, nothing when that is refused.
  // Registers that were changed meanwhile stay so.
  Result<void> finish_access(kvm::VcpuFd& cpu, std::optional<std::uint64_t> msr);
  // Memory or state may have changed behind it: while the CPU was paused, or run by KVM.
  void forget() noexcept;
  // After kEnter: KVM stopped where a user's code enters the kernel, before the kernel's first
  // instruction. When it is not told so and finds the CPU at CPL 0, the kernel has run meanwhile.
  void stopped_at_entry() noexcept { at_entry_ = true; }

  // An exception was given to KVM for delivery: some of those it does not tell about.
  void event_queued() noexcept { event_queued_ = true; }
  // The same for INT n, of which it never tells, and which it drops when its events are set before
  // it has delivered it: it is delivered here.
  void software_interrupt_queued(std::uint8_t vector) noexcept { software_interrupt_ = vector; }

  std::uint64_t executed() const noexcept { return executed_.value(); }

 private:
  std::optional<std::uint64_t> msr(std::uint32_t index) override;
  std::optional<std::uint64_t> tsc_offset() override;
  bool is_device_msr(std::uint32_t index) override { return is_device_msr_(index); }
  bool has_no_hypercalls() override { return no_hypercalls_; }

  Result<bool> load(kvm::VcpuFd& cpu);
  Result<void> store(kvm::VcpuFd& cpu);
  Result<void> store_registers(const kvm::VcpuFd& cpu) const;
  Result<void> after_kvm();
  Outcome enter() noexcept;
  void take_step_out_of_frame();
  bool deliver_events(const kvm::PendingEvents& events);
  Outcome execute(const std::optional<std::chrono::steady_clock::time_point>& deadline);
  std::span<const Insn> line_at(std::uint64_t rip);
  std::uint64_t place_of(const std::byte* code) noexcept;
  Next run_line(std::span<const Insn> line);
  std::optional<Outcome> stopped();
  Outcome access_device() noexcept;
  bool must_look(const std::optional<std::chrono::steady_clock::time_point>& deadline);

  const std::uint32_t number_;
  const GuestMemory& memory_;
  const std::uint8_t physical_bits_;
  bool (*const is_device_msr_)(std::uint32_t index);
  const bool no_hypercalls_;
  TableMap& tables_;
  Tlb tlb_;
  Cpu cpu_;
  LineCache lines_;
  std::span<const std::byte> code_region_;  // where code was found last
  std::uint64_t code_base_ = 0;             // its guest-physical address
  Block crossing_;                          // an instruction that lies in two pages
  kvm::VcpuFd* fd_ = nullptr;
  x86::SystemRegisters loaded_{};
  std::optional<std::uint64_t> star_, tsc_aux_, tsc_offset_;
  std::uint64_t root_ = ~0ULL;  // CR3 whose tables are known
  bool kvm_ran_kernel_ = true;  // KVM may have executed more than the instruction it was given
  bool entered_ = false;        // since kEnter
  std::optional<std::uint64_t> stepped_from_;  // RIP at kEnterStep
  bool at_entry_ = false;
  // KVM has run the user since the last interrupt: however fast they come, it gets on.
  bool user_ran_ = true;
  bool event_queued_ = false;
  std::optional<std::uint8_t> software_interrupt_ = {};
  bool nmi_taken_ = false;  // in this run
  bool nmi_waits_ = false;  // until they are no longer blocked
  Insn last_{};             // the instruction that stopped
  VcpuExit device_exit_{PioExit{}};
  bool step_next_ = false;  // the next instruction is KVM's, whatever it is
  std::uint32_t until_poll_ = 0, until_clock_ = 0;
  std::uint64_t count_ = 0;
  OwnedCounter executed_;
};

}  // namespace vmm::interpreter

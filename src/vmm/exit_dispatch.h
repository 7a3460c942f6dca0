// What each kind of exit means for the machine: the one switch that a vCPU thread goes through.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/locked.h"
#include "base/owned_counter.h"
#include "devices/bus.h"
#include "vmm/completion/completer.h"
#include "vmm/completion/sandbox.h"
#include "vmm/debug/debugger.h"
#include "vmm/interpreter/interpreter.h"
#include "vmm/machine.h"
#include "vmm/syscall_fixup.h"
#include "vmm/trace/exit_places.h"
#include "vmm/trace/syscall_watch.h"
#include "vmm/trace/traced_step.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_exit.h"

namespace vmm {

class RunWatch;
class SyscallTrace;

// For one vCPU; handle() is called on its thread only, the counters may be read from any.
class ExitDispatch final : public ExitHandler {
 public:
  static bool no_msr(std::uint32_t) { return false; }
  struct Options {
    bool complete_instructions = false;
    std::uint8_t physical_bits = 52;  // the guest's MAXPHYADDR
    bool syscall_fixup = false;
    bool interpret_kernel = false;  // Machine::page_tables is there
    // With that: what CPUs share of decoded code, borrowed, and the MSRs that exits are made of.
    interpreter::SharedLines* decoded_lines = nullptr;
    bool (*is_device_msr)(std::uint32_t index) = no_msr;
    bool no_hypercalls = false;  // likewise: VMCALL is not KVM's
    std::function<void(const std::string&)> trace;
    bool trace_cpuid = false;  // with interpret_kernel: trace is to have CPUID, too
    std::shared_ptr<SyscallTrace> syscalls = {};  // all CPUs'; may be null
  };

  // `machine` is borrowed and outlives this.
  ExitDispatch(VcpuId id, Machine& machine, Options options);
  ~ExitDispatch() override;

  AfterExit handle(kvm::VcpuFd& cpu, VcpuExit& exit) override;
  Result<NextStep> before_entry(kvm::VcpuFd& cpu) override;
  void host_error(Error error) override;
  void resumed() noexcept override {
    if (interpreter_) interpreter_->forget();
    seen_ = {};
  }
  std::shared_ptr<debug::StopBell> pausing() noexcept override {
    return std::exchange(bell_, nullptr);
  }
  // Borrowed. While the CPU is paused.
  void set_debugger(debug::Debugger* debugger) noexcept { debugger_ = debugger; }
  // Who sees every exit after it has been handled. Borrowed. While the CPU is paused.
  void set_watch(RunWatch* watch) noexcept { watch_ = watch; }
  // On the vCPU's thread, at rest: an exception waits that KVM may not tell of.
  void event_queued() noexcept {
    if (interpreter_) interpreter_->event_queued();
  }
  // On the vCPU's thread, at rest: its state has been replaced.
  Result<void> restored(kvm::VcpuFd& cpu);

  std::uint64_t count(std::size_t kind) const noexcept { return counts_[kind].value(); }
  // Adds this CPU's completed instructions, by mnemonic.
  void add_completed(std::map<std::string, std::uint64_t>& by_mnemonic) const;
  // Where accesses came from.
  const ExitPlaces& places() const noexcept { return places_; }
  // Instructions that were executed together with a completed one.
  std::uint64_t executed_ahead() const { return executed_ahead_.load(std::memory_order_relaxed); }
  // Instructions of the guest's kernel that were executed here.
  std::uint64_t interpreted() const { return interpreter_ ? interpreter_->executed() : 0; }

 private:
  Result<void> dispatch(kvm::VcpuFd& cpu, VcpuExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, PioExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, MmioExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, HltExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, ShutdownExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, IrqWindowExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, TprExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, InterruptedExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, SystemEventExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, DebugTrapExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, FailEntryExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, EmulationFailureExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, InternalErrorExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, IoapicEoiExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, MsrExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, MemoryFaultExit& exit);
  Result<void> on(kvm::VcpuFd& cpu, UnknownExit& exit);
  Result<void> on_lost_memory(kvm::VcpuFd& cpu);
  Result<void> on_hypercall(kvm::VcpuFd& cpu, const PioExit& exit, const HypercallPort& port);

  void stop(kvm::VcpuFd& cpu, StopReason reason, std::string detail, std::uint32_t value = 0,
            std::string report = {});
  void trace(const kvm::VcpuFd& cpu, const VcpuExit& exit) const;
  // " rip 0x... name+0x..."; empty for 0, a place that is not known.
  std::string place_text(const kvm::VcpuFd& cpu, std::uint64_t rip) const;
  // "name+0x..."; empty when it is not known.
  std::string name_of(const kvm::VcpuFd& cpu, std::uint64_t rip) const;
  // The CPU has just entered the guest's kernel by SYSCALL; or is about to go on in a user's code.
  Result<void> trace_syscall(const kvm::VcpuFd& cpu) const;
  Result<void> trace_return(const kvm::VcpuFd& cpu) const;
  // The part of a debug exit that is for tracing system calls; true when nothing is left of it.
  Result<bool> syscall_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit);
  // The flight recorder's part of handle().
  void record(const kvm::VcpuFd& cpu, const VcpuExit& exit) noexcept;
  // The same for what the CPU is given.
  void record_delivery(const kvm::VcpuFd& cpu, const NextStep& step) noexcept;

  // What a debugger has to do with it (exit_debug.cc). The CPU stops where it is.
  void stop_for_debugger(debug::StopKind kind, std::uint64_t address = 0);
  // The same between two instructions.
  Result<void> stop_with_state(const kvm::VcpuFd& cpu, debug::StopKind kind,
                               std::uint64_t address = 0);
  // Stops, or steps over it when its condition is false.
  Result<void> on_breakpoint(const kvm::VcpuFd& cpu, debug::StopKind kind, std::uint64_t pc);
  Result<void> after_step_over(const kvm::VcpuFd& cpu);
  // A step that KVM does not report, because the instruction ended in another exit.
  Result<void> after_instruction(kvm::VcpuFd& cpu);
  // The CPU stands on an INT3: whether that is the debugger's.
  Result<bool> on_planted(kvm::VcpuFd& cpu);
  // An access to RAM that KVM has left to us: whether the debugger guards or hides that page.
  Result<bool> on_guarded(kvm::VcpuFd& cpu, const MmioExit& exit);
  // An instruction that is completed here has read RAM.
  void on_completed_read(Gpa from, std::uint32_t size);
  Result<bool> stack_is_in(kvm::VcpuFd& cpu, Gpa page);
  // After an exit: INT3 stands again, and what was written for the guest may be watched.
  void look_at_memory(bool written);
  Result<void> on_breakpoint_exception(kvm::VcpuFd& cpu);
  // The quirk's part of a debug exit; true when nothing is left of it.
  Result<bool> quirk_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit);
  Result<void> guests_own_trap(kvm::VcpuFd& cpu, const DebugTrapExit& exit);
  // The syscall quirk follows the guest's IDT; looking costs two ioctls, so not at each exit.
  Result<void> refresh_quirks(kvm::VcpuFd& cpu);

  // What a tape has to do with it (exit_tape.cc): before an entry, and after each tick.
  Result<NextStep> before_tick(kvm::VcpuFd& cpu);
  Result<NextStep> before_played_tick(kvm::VcpuFd& cpu);
  Result<void> deliver_on_tape(kvm::VcpuFd& cpu);
  Result<void> look_at_next(kvm::VcpuFd& cpu);
  Result<void> take_step_out_of_frame(kvm::VcpuFd& cpu, const x86::Registers& registers);
  // Asked for once between two entries.
  Result<x86::Registers> registers_of(kvm::VcpuFd& cpu);
  Result<const x86::SystemRegisters*> system_of(kvm::VcpuFd& cpu);
  Result<void> tick(kvm::VcpuFd& cpu);
  Result<void> tick_in_kvm(kvm::VcpuFd& cpu);
  Result<void> judge_tick(kvm::VcpuFd& cpu, const x86::Registers& registers);
  void stop_tape(std::string why);
  Result<void> access_on_tape(PioExit& exit);
  Result<void> play_msr(kvm::VcpuFd& cpu, const MsrExit& exit);

  // Executes the guest's kernel here as far as that goes, before `step`.
  Result<NextStep> interpret(kvm::VcpuFd& cpu, NextStep step);
  bool may_interpret() const;
  Result<void> after_own_step(kvm::VcpuFd& cpu);
  // What KVM executes for the interpreter may be worth a line of the trace.
  Result<void> watch_step(const kvm::VcpuFd& cpu);
  Result<void> trace_step(const kvm::VcpuFd& cpu);
  Result<void> finish_own_access(kvm::VcpuFd& cpu, const VcpuExit& exit);

  Result<void> answer_msr(kvm::VcpuFd& cpu, const MsrExit& exit);

  // MMIO: this CPU's local APIC, if it is ours, or the machine's bus.
  void read_mmio(std::uint64_t address, std::span<std::byte> data);
  void ask_mmio(std::uint64_t address, std::span<std::byte> data);
  void write_mmio(std::uint64_t address, std::span<const std::byte> data);

  // The same as completion sees it.
  class CompletionBus final : public completion::MmioBus {
   public:
    explicit CompletionBus(ExitDispatch& dispatch) : dispatch_(dispatch) {}
    void read(Gpa address, std::span<std::byte> data) override {
      dispatch_.read_mmio(address.value, data);
    }
    void write(Gpa address, std::span<const std::byte> data) override {
      dispatch_.write_mmio(address.value, data);
    }
    void saw_read(Gpa address, std::uint32_t size) override {
      dispatch_.on_completed_read(address, size);
    }

   private:
    ExitDispatch& dispatch_;
  };
  // What finishing instructions needs; made when the first one has to be finished.
  struct Completion {
    Completion(Machine& machine, ExitDispatch& dispatch)
        : bus(dispatch),
          sandbox(*machine.system),
          completer(machine.memory, bus, &sandbox,
                    {.physical_bits = dispatch.options_.physical_bits}) {}
    CompletionBus bus;
    completion::Sandbox sandbox;
    completion::Completer completer;
  };
  Completion& completion();
  void count_completed(std::string_view mnemonic, std::uint32_t ahead);

  const VcpuId id_;
  Machine& machine_;
  const Options options_;
  ExitRing& ring_;  // the machine's for this CPU
  ExitPlaces places_;
  BusCache pio_cache_;
  BusCache mmio_cache_;
  debug::Debugger* debugger_ = nullptr;
  RunWatch* watch_ = nullptr;
  bool parks_ = false;                          // for the debugger, after this exit
  std::shared_ptr<debug::StopBell> bell_ = {};  // to be rung then
  std::uint64_t stepped_from_ = 0;              // RIP before this tick
  struct Seen {
    std::optional<x86::Registers> registers = {};
    std::optional<x86::SystemRegisters> system = {};
  };
  Seen seen_;  // since the last entry, where there is a tape
  std::optional<SyscallFixup> syscall_fixup_ = {};
  std::optional<SyscallWatch> syscall_watch_ = {};         // instead, when they are traced
  std::unique_ptr<interpreter::Interpreter> interpreter_;  // large
  std::optional<TracedStep> traced_step_ = {};             // the step under way, when it is traced
  bool completes_ = false;              // KVM has yet to finish the instruction that has exited
  std::optional<VcpuExit> piece_ = {};  // the next one of its access
  bool own_access_ = false;             // the interpreter has, which made the exit
  std::unique_ptr<Completion> completion_;
  // Touched once for each completed instruction, which costs microseconds: a lock does not show.
  Locked<std::map<std::string_view, std::uint64_t>> completed_;
  std::atomic<std::uint64_t> executed_ahead_{0};
  std::chrono::steady_clock::time_point refreshed_{};
  std::array<OwnedCounter, std::variant_size_v<VcpuExit>> counts_{};
};

}  // namespace vmm

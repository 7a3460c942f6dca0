// One KVM vCPU: running it and reading and writing its state.
#pragma once

#include <signal.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/vcpu_exit.h"
#include "vmm/x86/cpu_features.h"
#include "vmm/x86/debug_registers.h"
#include "vmm/x86/registers.h"

struct kvm_run;

namespace vmm::kvm {

struct Msr {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
  bool operator==(const Msr&) const = default;
  static void fields(auto&& f) {
    f("index", &Msr::index);
    f("value", &Msr::value);
  }
};

// KVM_GET_MP_STATE's answer, as far as x86 has it.
enum class MpState : std::uint8_t {
  kRunnable,
  kUninitialized,
  kInitReceived,
  kHalted,
  kSipiReceived,
  kOther
};

// An exception or interrupt on its way to the guest.
struct PendingException {
  x86::Vector vector{};
  std::optional<std::uint32_t> error_code = {};
};

// What KVM holds for the next entry, and what keeps interrupts away.
struct PendingEvents {
  std::optional<PendingException> exception = {};  // not INT3 and INTO: KVM does not tell
  std::optional<std::uint8_t> software_interrupt = {};
  std::optional<std::uint8_t> interrupt = {};  // an external one
  bool nmi = false;
  bool shadow = false;  // STI or MOV SS
  bool nmi_blocked = false;

  bool any() const noexcept { return exception || software_interrupt || interrupt || nmi; }
};

// A breakpoint or watchpoint in a debug register.
struct DebugSlot {
  enum class Kind : std::uint8_t { kExecute, kWrite, kReadOrWrite };
  std::uint64_t address = 0;  // linear
  Kind kind = Kind::kExecute;
  std::uint8_t size = 1;  // of the data: 1, 2, 4 or 8, and the address a multiple of it
  bool operator==(const DebugSlot&) const = default;
};

// What KVM_SET_GUEST_DEBUG arms.
struct GuestDebug {
  bool single_step = false;
  bool block_interrupts = false;      // while it steps; needs KVM_GUESTDBG_BLOCKIRQ
  bool software_breakpoints = false;  // INT3 ends in DebugTrapExit
  std::array<std::optional<DebugSlot>, 4> slots{};
  std::optional<std::uint64_t>
      hardware_breakpoint{};                        // execution breakpoint at this linear address
  std::optional<std::uint64_t> write_watchpoint{};  // writes to the 8 bytes at this linear address
  bool operator==(const GuestDebug&) const = default;
};

// Owner of a vCPU descriptor and of the page it shares with the kernel. Used by one thread at a
// time; only set_immediate_exit() may be called from others.
class VcpuFd {
 public:
  static Result<VcpuFd> create(UniqueFd fd, std::uint32_t id, std::size_t run_size,
                               std::size_t xsave_size);
  VcpuFd(VcpuFd&& other) noexcept;
  VcpuFd& operator=(VcpuFd&&) = delete;
  ~VcpuFd();

  // Only id() may be asked from then on. KVM takes a machine apart when all of its descriptors are
  // closed.
  void close() noexcept;

  std::uint32_t id() const noexcept { return id_; }
  int fd() const noexcept { return fd_.get(); }

  // KVM_RUN. Spans in the answer point into the shared page and live until the next call. Errors:
  // host failures only; a signal or immediate_exit is InterruptedExit.
  Result<VcpuExit> run();
  // From the next run() on, KVM leaves the general registers in the shared page at each return
  // (KVM_CAP_SYNC_REGS), which costs a copy; then exit_rip() tells RIP without a system call.
  void share_registers() noexcept;
  // 0 without share_registers().
  std::uint64_t exit_rip() const noexcept;
  bool shares_registers() const noexcept;
  // The same for the system registers, on or off, where KVM can. Then registers() and
  // system_registers() cost no system call until somebody sets something of the CPU.
  void share_system_registers(bool on) const noexcept;
  bool shares_system_registers() const noexcept;
  // What run() has left: what they are as long as nobody sets any.
  x86::Registers shared_registers() const noexcept;
  x86::SystemRegisters shared_system_registers() const noexcept;
  // For who has executed the guest in KVM's place.
  void set_exit_rip(std::uint64_t rip) noexcept;
  // Makes the next KVM_RUN finish what is pending and return InterruptedExit at once. Any thread.
  void set_immediate_exit(bool on) noexcept;
  // The same as a message to the vCPU's thread, which complete_pending() keeps (kick.h).
  void kick() noexcept {
    kicked_.store(true, std::memory_order_seq_cst);
    set_immediate_exit(true);
  }
  bool kicked() const noexcept { return kicked_.load(std::memory_order_relaxed); }
  void forget_kick() noexcept {
    kicked_.store(false, std::memory_order_seq_cst);
    set_immediate_exit(false);
  }
  // After run() returned a PIO, MMIO or MSR exit: lets the kernel put the answer into the
  // registers, without running the guest any further. An access that KVM reports in pieces is not
  // over then: the next piece, to be answered as the first.
  Result<std::optional<VcpuExit>> complete_pending();
  // complete_pending() leaves the registers where the next who asks finds them without a system
  // call, and so does run() when it shares them all: no longer. For who sets some of the CPU's
  // state by a request of his own.
  void forget_picture() const noexcept { has_picture_ = false; }
  // Answers an MsrExit before the next run(): `fault` raises #GP in the guest.
  void answer_msr(std::uint64_t value, bool fault) noexcept;
  // What answer_msr() has said; nothing: it is a fault.
  std::optional<std::uint64_t> msr_answer() const noexcept;

  Result<x86::Registers> registers() const;
  Result<void> set_registers(const x86::Registers& registers) const;
  Result<x86::SystemRegisters> system_registers() const;
  // Keeps a pending external interrupt (the interrupt bitmap) as it is.
  Result<void> set_system_registers(const x86::SystemRegisters& registers) const;
  // For who sets the events (interrupts among them) anew as well: takes half the requests.
  Result<void> replace_system_registers(const x86::SystemRegisters& registers) const;

  Result<void> set_cpuid(std::span<const x86::CpuidEntry> entries) const;
  Result<std::uint64_t> msr(std::uint32_t index) const;
  // The values of those that `msrs` names, up to the first that KVM does not know: how many.
  Result<std::size_t> read_msrs(std::span<Msr> msrs) const;
  Result<void> set_msrs(std::span<const Msr> msrs) const;

  Result<x86::XsaveArea> xsave() const;
  Result<void> set_xsave(const x86::XsaveArea& area) const;
  Result<std::uint64_t> xcr0() const;
  Result<void> set_xcr0(std::uint64_t value) const;

  Result<MpState> mp_state() const;
  Result<void> set_mp_state(MpState state) const;

  // Queues an exception for delivery on the next entry, as if the instruction at RIP had raised it.
  Result<void> inject(const PendingException& exception) const;
  // Queues what INT `vector` would deliver, with RIP behind the instruction.
  Result<void> inject_software_interrupt(std::uint8_t vector) const;
  // Ends the blocking of interrupts that STI and MOV SS begin.
  Result<void> end_interrupt_shadow() const;
  // Ends the blocking of NMIs that one of them began, as IRET does.
  Result<void> end_nmi_blocking() const;
  // DR0 to DR7, as the guest has set them.
  Result<x86::DebugRegisters> debug_registers() const;
  Result<void> set_debug_registers(const x86::DebugRegisters& registers) const;
  // DR7, as the guest has set it.
  Result<std::uint64_t> dr7() const;
  // Sets these bits of DR6.
  Result<void> raise_dr6(std::uint64_t bits) const;
  // Makes KVM forget every translation it has cached for this vCPU.
  Result<void> flush_tlb() const;
  Result<void> set_guest_debug(const GuestDebug& debug) const;

  // For interrupt controllers in user space (irqchip split or none). KVM_INTERRUPT: hands over an
  // external interrupt, delivered when the guest can take it; false when KVM still holds the last
  // one.
  Result<bool> interrupt(std::uint8_t vector);
  // Whether the last KVM_RUN left the guest able to take an external interrupt, and nobody has set
  // registers or injected anything since.
  bool ready_for_interrupt() const noexcept;
  // For who has executed the guest in KVM's place, after setting its registers.
  void set_ready_for_interrupt(bool ready) noexcept;
  Result<PendingEvents> pending_events() const;
  // They have been delivered, `nmi` says whether one NMI, too: KVM has none of them any more, and
  // is told whether interrupts are in the shadow of STI, and NMIs blocked.
  Result<void> take_events(bool nmi, bool shadow, bool nmi_blocked) const;
  // Whether KVM_RUN is to return IrqWindowExit as soon as the guest can take one.
  void request_interrupt_window(bool on) noexcept;
  bool interrupt_window_requested() const noexcept;
  // KVM_NMI: delivered as soon as the guest does not block it.
  Result<void> nmi() const;
  // CR8 as the last KVM_RUN left it, and as the next one finds it; at most 15.
  std::uint8_t cr8() const noexcept;
  void set_cr8(std::uint8_t value) noexcept;
  // IA32_APIC_BASE as the last KVM_RUN left it.
  std::uint64_t apic_base() const noexcept;
  // Drops exceptions, interrupts and NMIs that wait for the next entry, and what blocks them.
  Result<void> clear_events() const;
  // KVM_GET_TSC_KHZ: how fast the guest's TSC counts.
  Result<std::uint32_t> tsc_khz() const;
  // KVM_VCPU_TSC_OFFSET: guest's minus host's TSC. Nothing where KVM does not say.
  std::optional<std::uint64_t> tsc_offset() const;
  Result<void> set_tsc_offset(std::uint64_t offset) const;

  // KVM_KVMCLOCK_CTRL: the guest learns that it was paused, and takes that for no lockup. Nothing
  // happens when it does not use that clock.
  void tell_paused() const noexcept;

  // KVM_SET_SIGNAL_MASK: the thread's signal mask while it is inside KVM_RUN. A signal that is
  // blocked outside and not in this mask ends KVM_RUN with InterruptedExit and stays pending: no
  // handler runs.
  Result<void> set_signal_mask(const sigset_t& mask) const;

 private:
  VcpuFd(UniqueFd fd, std::uint32_t id, kvm_run* run, std::size_t run_size, std::size_t xsave_size)
      : fd_(std::move(fd)), id_(id), run_(run), run_size_(run_size), xsave_size_(xsave_size) {}
  // The guest's state has changed: what the last KVM_RUN said of interrupts no longer holds.
  void forget_readiness() const noexcept;
  Result<void> get(unsigned long request, void* to, const char* name) const;
  Result<void> set(unsigned long request, const void* from, const char* name) const;

  UniqueFd fd_;
  std::uint32_t id_;
  kvm_run* run_;
  std::size_t run_size_;
  std::size_t xsave_size_;
  std::atomic<bool> kicked_{false};
  // The shared page has the registers, system registers included, as they are now.
  mutable bool has_picture_ = false;
};

}  // namespace vmm::kvm

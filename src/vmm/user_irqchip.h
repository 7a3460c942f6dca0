// All interrupt controllers of a machine in this process (--irqchip user): local APICs, I/O APIC
// and the pair of 8259A, and how CPUs get interrupts from them (docs/irqchip.md).
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "devices/bus.h"
#include "devices/device_ref.h"
#include "devices/irq.h"
#include "devices/lapic_bank.h"
#include "vmm/guest_clock.h"
#include "vmm/irq_fabric.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/pc_chips.h"
#include "vmm/tick_gate.h"
#include "vmm/tick_governor.h"
#include "vmm/vcpu.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {

// Lock order: a device's lock, the fabric's, the I/O APIC's or the PIC's, the local APICs' (one for
// all of them), a vCPU's; EOI broadcasts, which go the other way, leave when none is held.
class UserIrqchip final : public IrqController, public MsiSink {
 public:
  struct Options {
    std::uint32_t cpus = 1;
    const GuestClock* clock = nullptr;  // borrowed
    std::uint32_t tsc_khz = 0;          // 0: no TSC-deadline timer
    bool x2apic = false;                // refused MSR accesses come to us
    unsigned tick_share = 0;            // for TickGovernor
  };
  // What has to come here, where the host has filters for MSRs.
  static std::array<kvm::MsrTrap, 2> traps() noexcept {
    return {{{.index = x86::kMsrApicBase, .writes = true},
             {.index = x86::kMsrTscDeadline, .reads = true, .writes = true}}};
  }

  explicit UserIrqchip(const Options& options);
  UserIrqchip(const UserIrqchip&) = delete;
  UserIrqchip& operator=(const UserIrqchip&) = delete;

  // ---- any thread

  // The windows of I/O APIC and PIC; local APICs' pages are each CPU's own: see read().
  Result<void> insert_into(Bus& pio, Bus& mmio) const { return chips_.insert_into(pio, mmio); }
  const DeviceHandle<Ioapic>& ioapic() const noexcept { return chips_.ioapic(); }
  const DeviceHandle<Pic8259>& pic() const noexcept { return chips_.pic(); }
  // PcChips::set_level_end().
  void set_level_end(std::function<bool(std::uint32_t gsi)> falls) {
    chips_.set_level_end(std::move(falls));
  }
  const DeviceHandle<LapicBank>& lapics() const noexcept { return lapics_; }

  void set_gsi(std::uint32_t gsi, bool asserted) override;
  // A way to `out` for a timer whose interrupts are ticks of the boot CPU: they come later while
  // its ticks are held. Before the guest runs; lives as long as this.
  IrqLine tick_line(IrqLine out);
  void send(std::uint64_t address, std::uint32_t data) override;

  // `wake` makes that CPU call before_entry() soon; it is called with locks held, and must not
  // wait. Set before the guest runs.
  void set_wake(std::function<void(VcpuId)> wake) { wake_ = std::move(wake); }

  // Whether no CPU can ever run again: all are halted with interrupts off, or not started.
  bool asleep_for_ever() const;

  // Timer interrupts that were held back so that the guest gets something done.
  std::uint64_t held_ticks() const noexcept { return held_ticks_.load(std::memory_order_relaxed); }

  // ---- the CPU's own thread

  // First thing after KVM_RUN: what the guest did to CR8 and to its APIC base.
  void on_exit(const kvm::VcpuFd& cpu);
  // An access to that CPU's register page; false when the address is not in it.
  bool read(VcpuId cpu, std::uint64_t address, std::span<std::byte> data);
  bool write(VcpuId cpu, std::uint64_t address, std::span<const std::byte> data);
  // Whether on_msr() answers for an MSR that guests use again and again.
  static bool answers(std::uint32_t msr) noexcept {
    return msr == x86::kMsrTscDeadline || (msr >= Lapic::kFirstMsr && msr <= Lapic::kLastMsr);
  }
  // An access to an MSR of the local APIC's; false when the MSR is none.
  Result<bool> on_msr(kvm::VcpuFd& cpu, const MsrExit& exit);
  void on_halt(VcpuId cpu);
  // Last thing of handling an exit: EOI broadcasts.
  void after_exit(VcpuId cpu);
  // At rest: no timer interrupt is held back any more, so that all there is is the chips' state.
  void release_ticks(VcpuId cpu);
  // At rest, after the local APICs' state was restored.
  void restored(VcpuId cpu);
  // Hands over what waits for the CPU: INIT, start-up, NMI, an interrupt.
  // `hold` keeps interrupts back from a CPU that runs: for single steps.
  Result<NextStep> before_entry(kvm::VcpuFd& cpu, bool hold = false);

 private:
  // The PIC's output: LINT0 of the boot CPU.
  struct Intr final : IrqPin {
    explicit Intr(UserIrqchip& chips) : chip(chips) {}
    void set_level(bool asserted) override;
    UserIrqchip& chip;
  };
  struct Cpu {
    explicit Cpu(unsigned tick_share) : governor(tick_share) {}
    static constexpr std::uint64_t kNoPage = 1;  // no page starts there
    std::atomic<std::uint64_t> page{kNoPage};    // written under the local APICs' lock
    std::atomic<bool> interrupts_on{true};       // RFLAGS.IF of a halted CPU
    // Of the CPU's thread.
    std::bitset<256> ended = {};  // vectors whose EOIs are to be broadcast
    std::uint64_t base = 0;       // as KVM last had it
    std::uint8_t cr8 = 0;         // likewise
    TickGovernor governor;
    bool holding = false;  // the local APIC's timer is held
  };
  // What a look at the local APIC finds for its CPU.
  struct Look {
    bool init = false;
    unsigned nmis = 0;
    std::optional<std::uint8_t> start_up = {};
    Lapic::Activity activity{};
    bool interrupt = false;  // it has one that the CPU could take
    bool ext_int = false;    // whose vector the PIC knows
    std::uint8_t cr8 = 0;
    std::optional<std::chrono::nanoseconds> next_event = {};
  };

  // A write of the APIC base MSR; false when it is a general-protection fault.
  Result<bool> set_base(const kvm::VcpuFd& fd, std::uint64_t value);
  void attend(VcpuId id);
  Cpu& cpu(VcpuId id) const { return *cpus_[static_cast<std::uint32_t>(id)]; }
  // With `take`, INIT, start-up and NMI are taken from the local APIC; else they are left there.
  Look look(VcpuId id, bool take);
  Result<void> restart(kvm::VcpuFd& fd, const Look& look);
  // Whether a halted CPU goes on.
  Result<bool> wakes(kvm::VcpuFd& fd, const Look& look);
  // The vector that it was.
  Result<std::uint8_t> inject(kvm::VcpuFd& fd, const Look& look);
  NextStep next_step(bool enter, const Look& look) const;
  // Holds this CPU's next tick back, or lets it go, as its governor says.
  void pace(kvm::VcpuFd& fd);
  void hold(VcpuId id, TickGovernor::Time left);
  void end_hold_in_time(VcpuId id, NextStep& step);
  void let_go(VcpuId id);

  const GuestClock* clock_;
  std::function<void(VcpuId)> wake_;
  std::vector<std::unique_ptr<Cpu>> cpus_;
  LapicBank* bank_ = nullptr;  // what lapics_ leads to; only under its lock
  DeviceHandle<LapicBank> lapics_;
  // The interval timer's interrupt, which goes to the boot CPU: its last edge, from when it is
  // given to a chip until it is given to the CPU; and one that waits because ticks are held.
  TickHold tick_hold_;
  std::vector<std::unique_ptr<TickGate>> tick_gates_ = {};  // complete before the guest runs
  std::atomic<std::uint64_t> held_ticks_{0};
  Intr intr_{*this};
  PcChips chips_;
};

}  // namespace vmm

// Local APIC of one CPU (Intel SDM volume 3, chapter 11: the xAPIC of a Xeon, version 0x14, with
// x2APIC mode of 11.12).
//
// Emulated: the register page and the x2APIC's MSRs; ID, LDR, DFR, TPR, PPR, APR, ISR, TMR, IRR,
// ESR, ICR with all delivery modes and shorthands, SVR with EOI-broadcast suppression, LVT entries
// for timer, LINT0, LINT1 and errors (thermal and performance ones are stored), the timer in its
// three modes, self IPI; IA32_APIC_BASE with its transitions; what INIT and start-up IPIs do.
// Not emulated: the serial bus and its arbitration IDs, focus processors, remote reads, SMI (there
// is no SMM: such messages are dropped), CMCI; delivery status (messages arrive at once: always
// idle); the polarity bits of LINT0 and LINT1 (pins are told whether they are asserted).
// Threats: none beyond interrupts that the guest's own CPUs take; an access does a bounded amount
// of work, and a timer of nanoseconds interrupts no more often than LapicTimer allows.
//
// Decisions where manual and processors leave room:
//  - The ID register is writable in xAPIC mode, as it is in KVM.
//  - In xAPIC mode reads of 1 to 4 bytes inside a register's first four give its bytes; only
//    aligned 32-bit writes count. Other bytes of the page read all ones.
//  - IPIs are edge-triggered whatever the ICR says (11.6.1); INIT level de-assert does nothing.
//  - NMIs are counted up to two: a CPU that handles one remembers one more.
//  - A higher-priority interrupt of a level-triggered LINT pin is sent again after its EOI.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "devices/apic_message.h"
#include "devices/clock.h"
#include "devices/device.h"
#include "devices/lapic_timer.h"
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

// What a local APIC reaches: the other ones, and the I/O APICs. Called with its lock held.
class ApicBus {
 public:
  virtual ~ApicBus() = default;
  // The CPU numbered `from` writes its ICR. May come back to accept() of any local APIC.
  virtual void send_ipi(VcpuId from, const ApicMessage& message) = 0;
  // CPU `from` has ended a level-triggered interrupt and does not suppress the broadcast.
  virtual void broadcast_eoi(VcpuId from, std::uint8_t vector) = 0;
};

// Externally synchronised, together with all others on its bus.
class Lapic final : public Device, public TimedDevice {
 public:
  static constexpr std::uint64_t kDefaultBase = 0xfee0'0000;
  static constexpr std::uint64_t kWindowSize = 0x1000;
  static constexpr std::uint32_t kFirstMsr = 0x800, kLastMsr = 0x8ff;

  // Registers by number: offset in the page / 16, MSR - 0x800 (SDM volume 3, table 11-6).
  enum Register : std::uint32_t {
    kId = 0x02,
    kVersion = 0x03,
    kTpr = 0x08,
    kApr = 0x09,
    kPpr = 0x0a,
    kEoi = 0x0b,
    kRemoteRead = 0x0c,
    kLdr = 0x0d,
    kDfr = 0x0e,
    kSvr = 0x0f,
    kIsr = 0x10,  // eight of them, as of the next two
    kTmr = 0x18,
    kIrr = 0x20,
    kEsr = 0x28,
    kIcr = 0x30,
    kIcrHigh = 0x31,
    kLvtTimer = 0x32,
    kLvtThermal = 0x33,
    kLvtPerformance = 0x34,
    kLvtLint0 = 0x35,
    kLvtLint1 = 0x36,
    kLvtError = 0x37,
    kInitialCount = 0x38,
    kCurrentCount = 0x39,
    kDivide = 0x3e,
    kSelfIpi = 0x3f,
  };
  static constexpr std::size_t kLvtEntries = 6;
  // One that the CPU takes at once, and one that waits until its handler returns.
  static constexpr std::uint8_t kMostNmis = 2;

  // Bits of the APIC base MSR (SDM volume 3, 11.4.4 and 11.12.1).
  static constexpr std::uint64_t kBaseBsp = 1U << 8, kBaseX2apic = 1U << 10, kBaseEnable = 1U << 11;
  // Of an LVT entry.
  static constexpr std::uint32_t kLvtDeliveryMode = 7U << 8, kLvtRemoteIrr = 1U << 14,
                                 kLvtLevel = 1U << 15, kLvtMasked = 1U << 16,
                                 kLvtTimerMode = 3U << 17;
  // Of the spurious vector register.
  static constexpr std::uint32_t kSvrEnable = 1U << 8, kSvrSuppressEoi = 1U << 12;
  // Of the error status register.
  static constexpr std::uint32_t kEsrSendIllegal = 1U << 5, kEsrReceiveIllegal = 1U << 6,
                                 kEsrIllegalRegister = 1U << 7;

  // What its CPU is doing as far as messages decide it.
  enum class Activity : std::uint8_t { kActive, kHalted, kWaitForStartUp };

  struct State {
    static constexpr StateId kId{"lapic", 2};
    std::uint64_t base = kDefaultBase | kBaseEnable;
    std::uint32_t id = 0;  // 8 bits in xAPIC mode, in bits 31:24 of the register
    std::uint8_t tpr = 0;
    std::uint8_t ldr = 0;
    std::uint8_t dfr = 0xf;  // the model: bits 31:28 of the register
    std::uint32_t svr = 0xff;
    std::uint32_t esr = 0;     // as the guest reads it
    std::uint32_t errors = 0;  // since the guest last wrote the ESR
    std::uint64_t icr = 0;
    std::array<std::uint32_t, 8> isr{}, tmr{}, irr{};
    std::array<std::uint32_t, kLvtEntries> lvt = all_masked();
    LapicTimer::State timer = {};
    std::array<bool, 2> lint{};  // inputs of LINT0 and LINT1
    bool ext_int = false;        // an ExtINT message has come
    std::uint8_t nmis = 0;       // these four wait for the CPU; of NMIs kMostNmis at most
    bool init = false;
    std::optional<std::uint8_t> start_up = {};  // vector of a start-up IPI
    Activity activity = Activity::kActive;

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("base", &State::base);
      f("id", &State::id);
      f("tpr", &State::tpr);
      f("ldr", &State::ldr);
      f("dfr", &State::dfr);
      f("svr", &State::svr);
      f("esr", &State::esr);
      f("errors", &State::errors);
      f("icr", &State::icr);
      f("isr", &State::isr);
      f("tmr", &State::tmr);
      f("irr", &State::irr);
      f("lvt", &State::lvt);
      f("timer", &State::timer);
      f("lint", &State::lint);
      f("ext_int", &State::ext_int);
      f("nmis", &State::nmis);
      f("init", &State::init);
      f("start_up", &State::start_up);
      f("activity", &State::activity);
    }

   private:
    static constexpr std::array<std::uint32_t, kLvtEntries> all_masked() {
      std::array<std::uint32_t, kLvtEntries> entries{};
      entries.fill(kLvtMasked);
      return entries;
    }
  };

  struct Ports {
    const Clock* clock = nullptr;  // borrowed; nullptr: time stands still
    ApicBus* bus = nullptr;        // borrowed; nullptr: nobody else is there
    // There is something for the CPU to look at. Called with the lock held; must only note that.
    std::function<void()> attention = {};
    std::uint32_t tsc_khz = 0;  // 0: no TSC-deadline mode
    bool x2apic = false;
  };

  // CPU 0 is the boot CPU; all others wait for a start-up IPI.
  Lapic(std::string name, VcpuId cpu, Ports ports);

  const State& state() const noexcept { return s_; }
  VcpuId cpu() const noexcept { return cpu_; }

  // ---- its CPU's accesses
  bool x2apic() const noexcept { return (s_.base & kBaseX2apic) != 0; }
  bool enabled() const noexcept { return (s_.base & kBaseEnable) != 0; }
  // Where its register page is; nothing when it has none.
  std::optional<std::uint64_t> page() const noexcept;
  // IA32_APIC_BASE. False: #GP.
  bool set_base(std::uint64_t value);
  // MSRs kFirstMsr to kLastMsr; nothing, or false: #GP.
  std::optional<std::uint64_t> read_msr(std::uint32_t index);
  bool write_msr(std::uint32_t index, std::uint64_t value);
  // IA32_TSC_DEADLINE; `tsc` is what the CPU's TSC shows now.
  std::uint64_t tsc_deadline();
  void set_tsc_deadline(std::uint64_t deadline, std::uint64_t tsc);
  // CR8: the TPR's upper half.
  std::uint8_t cr8() const noexcept { return s_.tpr >> 4; }
  void set_cr8(std::uint8_t value);

  // ---- what others send
  bool matches(const ApicMessage& message) const;
  bool accepts_lowest_priority() const;
  std::uint8_t arbitration_priority() const;
  void accept(const ApicMessage& message);
  // The inputs: 0 and 1.
  void set_lint(std::size_t pin, bool asserted);

  // ---- what its CPU takes
  // An interrupt that it could take now: of the APIC, or (see wants_ext_int()) of the PIC.
  bool has_interrupt() const;
  // The PIC is to be asked for the vector instead of acknowledge().
  bool wants_ext_int() const;
  // The PIC has been asked.
  void ext_int_taken() { s_.ext_int = false; }
  // Moves the highest interrupt into service: its vector, or the spurious one.
  std::uint8_t acknowledge();
  // One of the NMIs that wait, when there is one.
  bool take_nmi();
  // The CPU has to go to its state after INIT. A boot CPU then goes on, others wait for start-up.
  bool take_init();
  std::optional<std::uint8_t> take_start_up();
  void set_halted(bool halted);

  // ---- TimedDevice: the timer
  std::optional<std::chrono::nanoseconds> next_event() const override;
  void on_time() override;
  // Timer interrupts that became one with an earlier one, since creation.
  std::uint64_t coalesced() const noexcept { return coalesced_; }
  // Until then (as the clock counts) the timer expires in silence: what falls due comes then. Not a
  // part of what the guest sees but for its being late.
  void hold_timer(std::optional<std::chrono::nanoseconds> until) { timer_hold_ = until; }
  // Whether an expiry is being held back.
  bool timer_held() const;
  // The vector that the timer delivers; nothing while it is masked.
  std::optional<std::uint8_t> timer_vector() const;

  // ---- Device: the register page
  std::string_view id() const noexcept override { return name_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;
  // For who saves many at once.
  void set_state(const State& state);

 private:
  bool boot_cpu() const noexcept { return cpu_ == VcpuId{0}; }
  bool software_enabled() const noexcept { return (s_.svr & kSvrEnable) != 0; }
  std::int64_t now() const;
  State power_on() const;

  std::optional<std::uint32_t> read_register(std::uint32_t number);
  bool write_register(std::uint32_t number, std::uint32_t value);
  std::uint32_t reserved_bits(std::uint32_t number) const;
  std::uint32_t logical_id() const;
  std::uint8_t ppr() const;
  std::uint8_t apr() const;

  void write_svr(std::uint32_t value);
  void write_lvt(std::size_t index, std::uint32_t value);
  void write_esr();
  void end_of_interrupt();
  void send_icr();
  void request(std::uint8_t vector, bool level);
  void deliver_local(std::size_t lvt_index);
  void settle_lint(std::size_t pin, bool rising);
  void request_nmi();
  void report(std::uint32_t error);
  void take_init_message();
  enum class Held : bool { kStays, kComes };
  void expire_timer(Held held = Held::kStays);
  void tell();

  State s_;
  Ports ports_;
  std::string name_;
  VcpuId cpu_;
  LapicTimer timer_{s_.timer};
  std::uint64_t coalesced_ = 0;                              // a statistic: not saved
  std::optional<std::chrono::nanoseconds> timer_hold_ = {};  // pacing, not state: not saved
};

}  // namespace vmm

#include "vmm/interpreter/interpreter.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/le.h"
#include "vmm/interpreter/access.h"
#include "vmm/interpreter/transfer.h"
#include "vmm/x86/paging_context.h"

namespace vmm::interpreter {
namespace {

// How many instructions pass between two looks at who wants the CPU, and at the clock.
constexpr std::uint32_t kPoll = 256;
constexpr std::uint32_t kClock = 4096;
constexpr std::size_t kLongest = 15;  // bytes of an instruction

Next for_kvm(Cpu& cpu, const Insn&) noexcept { return cpu.leave(Stop::kKvm); }

}  // namespace

Interpreter::Interpreter(std::uint32_t cpu, const GuestMemory& memory, TableMap& tables,
                         SharedLines& lines, std::uint8_t physical_bits,
                         bool (*device_msr)(std::uint32_t index), bool no_hypercalls)
    : number_(cpu),
      memory_(memory),
      physical_bits_(physical_bits),
      is_device_msr_(device_msr),
      no_hypercalls_(no_hypercalls),
      tables_(tables),
      tlb_(memory, tables),
      cpu_(tlb_, *this),
      lines_(lines) {}

void Interpreter::forget() noexcept {
  root_ = ~0ULL;
  kvm_ran_kernel_ = true;
  // KVM has it, if it is still to be delivered at all.
  if (std::exchange(software_interrupt_, std::nullopt)) event_queued_ = true;
}

std::optional<std::uint64_t> Interpreter::msr(std::uint32_t index) {
  std::optional<std::uint64_t>* const known = index == x86::kMsrStar     ? &star_
                                              : index == x86::kMsrTscAux ? &tsc_aux_
                                                                         : nullptr;
  if (known != nullptr && *known) return *known;
  const auto value = fd_->msr(index);
  if (!value) return std::nullopt;
  if (known != nullptr) *known = *value;
  return *value;
}

std::optional<std::uint64_t> Interpreter::tsc_offset() {
  if (!tsc_offset_) tsc_offset_ = fd_->tsc_offset();
  return tsc_offset_;
}

// KVM has run: what is known of the CPU and its tables is brought up to date.
Result<void> Interpreter::after_kvm() {
  bool anew = false;
  if (cpu_.refused.at != nullptr) {
    anew = tables_.count_refusal();
    const std::byte* const entry =
        cpu_.refused.at - reinterpret_cast<std::uintptr_t>(cpu_.refused.at) % sizeof(std::uint64_t);
    tables_.add_entry(load_at<std::uint64_t>(entry),
                      cpu_.refused.mark->load(std::memory_order_relaxed));
    cpu_.refused = {};
  }
  if (kvm_ran_kernel_ || cpu_.writes_msr) star_ = tsc_aux_ = tsc_offset_ = std::nullopt;
  if (kvm_ran_kernel_) {
    tables_.look_again();
    tlb_.forget();
  } else if (!cpu_.keeps_translations) {
    tlb_.forget();
  }
  kvm_ran_kernel_ = false;
  cpu_.keeps_translations = true;
  cpu_.writes_msr = false;
  return anew ? tables_.begin_anew() : Result<void>();
}

// KVM steps by TF, and where it delivers an exception by itself, the frame has it: it is not the
// guest's. The handler's first instruction may have been executed, and have pushed something.
void Interpreter::take_step_out_of_frame() {
  const std::uint64_t from = std::exchange(stepped_from_, std::nullopt).value_or(cpu_.rip);
  constexpr std::uint64_t kMostPushed = 4;
  if (cpu_.rip - from <= kLongest) return;
  for (std::uint64_t i = 0; i < kMostPushed; ++i) {
    struct {
      std::uint64_t rip, cs, rflags;
    } frame;
    const std::uint64_t at = cpu_.file[x86::kRsp] + i * sizeof(std::uint64_t);
    if (!tlb_.copy_in(at, std::as_writable_bytes(std::span(&frame, 1)))) return;
    if (frame.rip - from > kLongest || frame.cs != cpu_.system.cs.selector ||
        (frame.rflags & x86::kFlagTf) == 0) {
      continue;
    }
    frame.rflags &= ~x86::kFlagTf;
    (void)tlb_.copy_out(at, std::as_bytes(std::span(&frame, 1)));
    return;
  }
}

// False: nothing here for us.
Result<bool> Interpreter::load(kvm::VcpuFd& cpu) {
  fd_ = &cpu;
  loaded_ = VMM_TRY(cpu.system_registers());
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const int cpl = loaded_.cpl();
  if (entered_ && cpl == 0 && !at_entry_) kvm_ran_kernel_ = true;
  entered_ = at_entry_ = false;
  if (!loaded_.code_is_64bit() || (loaded_.cr0 & x86::kCr0Pg) == 0 || (cpl != 0 && cpl != 3) ||
      (registers.rflags & x86::kFlagTf) != 0) {
    kvm_ran_kernel_ = true;
    return false;
  }
  // The guest may have set a breakpoint of its own.
  constexpr std::uint64_t kEnabled = 0xff;
  if ((kvm_ran_kernel_ || !cpu_.keeps_translations) && (VMM_TRY(cpu.dr7()) & kEnabled) != 0) {
    kvm_ran_kernel_ = true;
    return false;
  }
  cpu_.system = loaded_;
  std::copy(registers.gpr.begin(), registers.gpr.end(), cpu_.file.begin());
  cpu_.rip = registers.rip;
  cpu_.segment_base = {0, loaded_.fs.base, loaded_.gs.base};
  cpu_.kernel_gs_base.reset();
  cpu_.kernel_gs_changed = false;
  cpu_.shadow = false;
  VMM_TRY(after_kvm());
  PagingContext paging = x86::paging_context(loaded_, 0);
  paging.physical_bits = physical_bits_;
  tlb_.set_context(paging);
  cpu_.set_rflags(registers.rflags);
  if (root_ != loaded_.cr3) {
    constexpr std::uint64_t kLa57 = x86::kCr4La57;
    tables_.add_root(number_, Gpa(loaded_.cr3), (loaded_.cr4 & kLa57) != 0 ? 5 : 4);
    root_ = loaded_.cr3;
  }
  return true;
}

Result<void> Interpreter::store_registers(const kvm::VcpuFd& cpu) const {
  x86::Registers registers;
  std::copy_n(cpu_.file.begin(), registers.gpr.size(), registers.gpr.begin());
  registers.rip = cpu_.rip;
  registers.rflags = cpu_.rflags();
  return cpu.set_registers(registers);
}

Result<void> Interpreter::store(kvm::VcpuFd& cpu) {
  cpu_.system.fs.base = cpu_.segment_base[1];
  cpu_.system.gs.base = cpu_.segment_base[2];
  if (cpu_.system != loaded_) VMM_TRY(cpu.set_system_registers(cpu_.system));
  VMM_TRY(store_registers(cpu));
  if (cpu_.kernel_gs_changed) {
    const std::array<kvm::Msr, 1> msrs{{{x86::kMsrKernelGsBase, *cpu_.kernel_gs_base}}};
    VMM_TRY(cpu.set_msrs(msrs));
  }
  return {};
}

// The guest-physical address: the same in each clone, wherever its memory lies in this process.
std::uint64_t Interpreter::place_of(const std::byte* code) noexcept {
  const auto offset_in = [code](std::span<const std::byte> region) {
    return reinterpret_cast<std::uintptr_t>(code) - reinterpret_cast<std::uintptr_t>(region.data());
  };
  if (const auto offset = offset_in(code_region_); offset < code_region_.size()) {
    return code_base_ + offset;
  }
  for (const GuestRegion& region : memory_.regions()) {
    const std::span<const std::byte> all(region.hva(),
                                         static_cast<std::size_t>(region.range().size()));
    if (offset_in(all) >= all.size()) continue;
    code_region_ = all;
    code_base_ = region.range().base().value;
    return code_base_ + offset_in(all);
  }
  return reinterpret_cast<std::uintptr_t>(code);
}

// Empty: there is none that can be fetched.
std::span<const Insn> Interpreter::line_at(std::uint64_t rip) {
  const std::byte* const code = tlb_.fetch(rip);
  if (code == nullptr) {
    (void)cpu_.leave(tlb_.last_miss());
    return {};
  }
  const std::size_t here = Tlb::kPage - rip % Tlb::kPage;
  if (const auto line = lines_.find(place_of(code), {code, here}); !line.empty()) return line;
  std::array<std::byte, kLongest> bytes{};
  std::size_t size = std::min(here, kLongest);
  std::memcpy(bytes.data(), code, size);
  if (here < kLongest) {
    const std::byte* const more = tlb_.fetch(rip + here);
    if (more == nullptr) {
      (void)cpu_.leave(tlb_.last_miss());
      return {};
    }
    std::memcpy(bytes.data() + here, more, kLongest - here);
    size = kLongest;
  }
  if (!decode_block(std::span(bytes).first(size), crossing_)) {
    crossing_.insns[0] = {.run = for_kvm};  // no instruction at all
  }
  return std::span(crossing_.insns).first<1>();
}

[[gnu::hot]] Next Interpreter::run_line(std::span<const Insn> line) {
  // After STI one instruction, which is not interrupted.
  const auto count = cpu_.shadow ? std::uint8_t{1} : static_cast<std::uint8_t>(line.size());
  std::uint8_t i = 0;
  Next next = Next::kOn;
  for (; i < count; ++i) {
    const Insn& insn = line[i];
    cpu_.next_rip() = cpu_.rip + insn.length;
    next = insn.run(cpu_, insn);
    if (next == Next::kStop) [[unlikely]] {
      last_ = insn;
      break;
    }
    cpu_.rip = cpu_.next_rip();
    if (next == Next::kJump) {
      ++i;
      break;
    }
  }
  count_ += i;
  until_poll_ -= std::min<std::uint32_t>(until_poll_, i);
  return next;
}

bool Interpreter::must_look(const std::optional<std::chrono::steady_clock::time_point>& deadline) {
  if (until_poll_ != 0) return false;
  until_poll_ = kPoll;
  if (fd_->kicked()) return true;
  until_clock_ -= std::min(until_clock_, kPoll);
  if (until_clock_ != 0 || !deadline) return false;
  until_clock_ = kClock;
  return std::chrono::steady_clock::now() >= *deadline;
}

// What follows from an instruction that was not executed; nothing: go on.
std::optional<Outcome> Interpreter::stopped() {
  switch (cpu_.stop) {
    case Stop::kPageFault: {
      const std::uint64_t before = cpu_.system.cr2;
      cpu_.system.cr2 = cpu_.fault.address;
      if (deliver(cpu_, {.vector = static_cast<std::uint8_t>(x86::Vector::kPageFault),
                         .error_code = cpu_.fault.error_code,
                         .fault = true})) {
        return std::nullopt;
      }
      cpu_.system.cr2 = before;
      return Outcome::kEnterStep;
    }
    case Stop::kAgain:
      until_poll_ -= std::min<std::uint32_t>(until_poll_, kPoll / 4);
      return std::nullopt;
    case Stop::kHalt:
      at_entry_ = true;  // nothing behind it is executed
      return Outcome::kEnter;
    case Stop::kKvmToUser:
      return Outcome::kEnter;
    case Stop::kDevice:
      return access_device();
    case Stop::kKvm:
      break;
  }
  return Outcome::kEnterStep;
}

// In the shadow of STI KVM does it, which then ends the shadow.
Outcome Interpreter::access_device() noexcept {
  if (cpu_.shadow) return Outcome::kEnterStep;
  device_exit_ = as_exit(cpu_.access);
  const bool done = cpu_.access.is_write && cpu_.access.to != DeviceAccess::To::kMsr;
  if (done) {
    cpu_.rip = cpu_.next_rip();
    ++count_;
  }
  return Outcome::kDevice;
}

Result<void> Interpreter::finish_access(kvm::VcpuFd& cpu, std::optional<std::uint64_t> msr) {
  const bool is_msr = cpu_.access.to == DeviceAccess::To::kMsr;
  if (cpu_.access.is_write && !is_msr) return {};
  if (is_msr && !msr) {
    step_next_ = true;  // KVM raises the exception
    return {};
  }
  if (is_msr) store_le(std::span(cpu_.access.data), *msr);
  x86::Registers registers = VMM_TRY(cpu.registers());
  if (registers.rip != cpu_.rip) return {};
  std::copy(registers.gpr.begin(), registers.gpr.end(), cpu_.file.begin());
  cpu_.set_rflags(registers.rflags);
  cpu_.next_rip() = cpu_.rip + last_.length;
  cpu_.answered = true;
  const Next next = last_.run(cpu_, last_);
  cpu_.answered = false;
  if (next == Next::kStop) return {};  // it is tried again
  cpu_.rip = cpu_.next_rip();
  executed_.add(1);
  VMM_TRY(store_registers(cpu));
  cpu.set_ready_for_interrupt(cpu_.interrupts_on());
  return {};
}

Outcome Interpreter::execute(const std::optional<std::chrono::steady_clock::time_point>& deadline) {
  const bool window = fd_->interrupt_window_requested();
  until_poll_ = kPoll;
  until_clock_ = kClock;
  for (;;) {
    const bool user = cpu_.system.cpl() != 0;
    if (window && cpu_.interrupts_on() && !cpu_.shadow && (!user || user_ran_)) {
      return Outcome::kLook;
    }
    if (user) return Outcome::kEnter;
    const bool shadow = cpu_.shadow;
    if (!shadow && (must_look(deadline) || (nmi_waits_ && !cpu_.nmi_blocked))) {
      return Outcome::kLook;
    }
    const std::span<const Insn> line = line_at(cpu_.rip);
    const Next next = line.empty() ? Next::kStop : run_line(line);
    if (next == Next::kStop) {
      if (const auto outcome = stopped()) return *outcome;
    } else if (shadow) {
      cpu_.shadow = false;
    }
  }
}

Outcome Interpreter::enter() noexcept {
  entered_ = user_ran_ = true;
  return Outcome::kEnter;
}

namespace {

// What KVM does about these MSRs it does when it enters the guest the next time, which after a step
// over WRMSR nothing here may ever need: it writes to the guest's memory (kvmclock, time stolen),
// or sets its clock by the TSC.
bool takes_effect_later(const Cpu& cpu) {
  constexpr std::uint32_t kTsc = 0x10, kTscAdjust = 0x3b, kOldSystemTime = 0x12, kOfKvm = 0x4b56'4d;
  const auto msr = static_cast<std::uint32_t>(cpu.file[x86::kRcx]);
  return msr == kTsc || msr == kTscAdjust || msr == kOldSystemTime || msr >> 8 == kOfKvm;
}

// All exceptions that KVM tells about but #DB are faults (SDM volume 3, table 6-1).
Event as_event(const kvm::PendingException& exception) {
  return {.vector = static_cast<std::uint8_t>(exception.vector),
          .error_code = exception.error_code,
          .fault = exception.vector != x86::Vector::kDebug};
}

}  // namespace

// What KVM holds for the CPU, in the order in which a processor takes it. False: it stays there.
bool Interpreter::deliver_events(const kvm::PendingEvents& events) {
  if (event_queued_) return false;
  if (events.exception) {
    // A page fault of a user may be a system call that did not arrive: KVM stops where that is seen
    // (syscall_fixup.h).
    if (cpu_.system.cpl() != 0) return false;
    if (!deliver(cpu_, as_event(*events.exception))) return false;
  } else if (events.software_interrupt) {
    if (!deliver(cpu_, {.vector = *events.software_interrupt})) return false;
  } else if (events.interrupt) {
    if (!cpu_.interrupts_on() || events.shadow || !deliver(cpu_, {.vector = *events.interrupt})) {
      return false;
    }
  }
  nmi_taken_ = events.nmi && !events.nmi_blocked && !events.shadow;
  nmi_waits_ = events.nmi && !nmi_taken_;
  if (!nmi_taken_) return true;
  cpu_.nmi_blocked = true;
  return deliver(cpu_, {.vector = static_cast<std::uint8_t>(x86::Vector::kNmi)});
}

Result<Outcome> Interpreter::run(kvm::VcpuFd& cpu,
                                 std::optional<std::chrono::steady_clock::time_point> deadline) {
  kvm::PendingEvents events = VMM_TRY(cpu.pending_events());
  const auto queued = std::exchange(software_interrupt_, std::nullopt);
  if (queued) events.software_interrupt = queued;
  if (!VMM_TRY(load(cpu))) return enter();
  cpu_.nmi_blocked = events.nmi_blocked;
  cpu_.shadow = events.shadow;
  take_step_out_of_frame();
  if (!deliver_events(events)) {
    event_queued_ = false;
    return enter();
  }
  if (cpu_.system.cpl() != 0) return enter();
  const std::uint64_t before = count_;
  const Outcome outcome =
      std::exchange(step_next_, false) ? Outcome::kEnterStep : execute(deadline);
  if (outcome == Outcome::kEnter) (void)enter();
  if (outcome == Outcome::kEnterStep) stepped_from_ = cpu_.rip;
  if (outcome == Outcome::kEnterStep && cpu_.writes_msr) step_next_ = takes_effect_later(cpu_);
  executed_.add(count_ - before);
  const bool events_changed =
      events.any() || cpu_.nmi_blocked != events.nmi_blocked || cpu_.shadow != events.shadow;
  if (events_changed) VMM_TRY(cpu.take_events(nmi_taken_, cpu_.shadow, cpu_.nmi_blocked));
  if (events_changed || count_ != before || cpu_.system != loaded_) VMM_TRY(store(cpu));
  cpu.set_ready_for_interrupt(cpu_.interrupts_on() && !cpu_.shadow);
  cpu.set_exit_rip(cpu_.rip);
  return outcome;
}

}  // namespace vmm::interpreter

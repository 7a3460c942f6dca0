#include "vmm/exit_dispatch.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/le.h"
#include "vmm/completion/kvm_cpu.h"
#include "vmm/debug/symbols.h"
#include "vmm/reset_vector.h"
#include "vmm/run_watch.h"
#include "vmm/trace/describe_exit.h"
#include "vmm/trace/syscall_trace.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

// KVM_SYSTEM_EVENT_* (Documentation/virt/kvm/api.rst, 5).
constexpr std::uint32_t kSystemEventShutdown = 1;
constexpr std::uint32_t kSystemEventReset = 2;
constexpr std::uint32_t kSystemEventCrash = 3;

// How long a change of the guest's interrupt table may go unnoticed by the quirk that follows it.
constexpr std::chrono::milliseconds kQuirkRefresh{10};

}  // namespace

ExitDispatch::ExitDispatch(VcpuId id, Machine& machine, Options options)
    : id_(id),
      machine_(machine),
      options_(std::move(options)),
      ring_(*machine.exit_rings[static_cast<std::uint32_t>(id)]),
      pio_cache_(id),
      mmio_cache_(id) {
  if (options_.syscall_fixup) syscall_fixup_.emplace(machine.memory, debug());
  if (options_.syscalls && !options_.syscall_fixup) syscall_watch_.emplace(debug());
  if (options_.interpret_kernel) {
    interpreter_ = std::make_unique<interpreter::Interpreter>(
        static_cast<std::uint32_t>(id), machine.memory, *machine.page_tables,
        *options_.decoded_lines, options_.physical_bits, options_.is_device_msr,
        options_.no_hypercalls);
  }
}

ExitDispatch::~ExitDispatch() = default;

[[gnu::hot]] AfterExit ExitDispatch::handle(kvm::VcpuFd& cpu, VcpuExit& exit) {
  counts_[exit.index()].add();
  if (interpreter_) {
    if (debug().interpreter_steps() && std::holds_alternative<DebugTrapExit>(exit)) {
      if (auto done = after_own_step(cpu); !done) host_error(std::move(done).error());
      return machine_.stops.posted() ? AfterExit::kPark : AfterExit::kRunOn;
    }
    traced_step_.reset();  // it ended in this exit
    completes_ = !own_access_ &&
                 (std::holds_alternative<PioExit>(exit) || std::holds_alternative<MmioExit>(exit) ||
                  std::holds_alternative<MsrExit>(exit));
  }
  // What is played again happens to the CPU and its memory only.
  const bool plays = debug().tape().plays();
  if (!plays) record(cpu, exit);
  UserIrqchip* const chips = plays ? nullptr : machine_.user_irqchip;
  if (chips != nullptr && !own_access_) chips->on_exit(cpu);
  auto done = dispatch(cpu, exit);
  if (chips != nullptr) chips->after_exit(id_);
  if (done && std::exchange(own_access_, false)) done = finish_own_access(cpu, exit);
  if (ring_.enabled() && !plays) {
    const auto* const msr = std::get_if<MsrExit>(&exit);
    ring_.finish(msr != nullptr && !msr->is_write ? cpu.msr_answer() : value_read(exit));
  }
  if (options_.trace && !plays) trace(cpu, exit);  // afterwards: reads show what the guest gets
  if (debugger_ != nullptr) look_at_memory(std::holds_alternative<EmulationFailureExit>(exit));
  if (done && syscall_fixup_ && !debug().tape().active()) done = refresh_quirks(cpu);
  if (!done) host_error(std::move(done).error());
  if (watch_ != nullptr) watch_->on_exit(id_, exit);
  // The end of the guest may be what is played up to.
  const bool parks = std::exchange(parks_, false) || (!plays && machine_.stops.posted());
  return parks ? AfterExit::kPark : AfterExit::kRunOn;
}

[[gnu::hot]] void ExitDispatch::record(const kvm::VcpuFd& cpu, const VcpuExit& exit) noexcept {
  if (!ring_.enabled()) return;
  const ExitRecord record = describe_exit(exit, cpu.exit_rip());
  ring_.begin(record);
  if (record.is_access()) places_.count(record);
}

[[gnu::hot]] Result<NextStep> ExitDispatch::before_entry(kvm::VcpuFd& cpu) {
  if (machine_.asleep.load(std::memory_order_acquire)) return NextStep{.enter = false};
  // A step stays where it is: interrupts wait for the next one that is none.
  const bool hold = debug().stepping();
  if (debug().tape().active()) [[unlikely]] {
    return before_tick(cpu);
  }
  if (machine_.user_irqchip != nullptr) {
    auto step = machine_.user_irqchip->before_entry(cpu, hold);
    if (step) record_delivery(cpu, *step);
    return interpreter_ && step && step->enter ? interpret(cpu, *step) : step;
  }
  // The PIC's output is wired to the first CPU.
  if (machine_.split_irqchip != nullptr && id_ == VcpuId{0} && !hold) {
    const NextStep step{.interrupt = VMM_TRY(machine_.split_irqchip->before_entry(cpu))};
    record_delivery(cpu, step);
  }
  return NextStep{};
}

[[gnu::hot]] void ExitDispatch::record_delivery(const kvm::VcpuFd& cpu,
                                                const NextStep& step) noexcept {
  if (!step.nmi && !step.interrupt) return;
  const auto id = static_cast<std::uint16_t>(id_);
  const std::uint64_t rip = cpu.exit_rip();
  const std::string symbol = machine_.events.is_live() ? name_of(cpu, rip) : std::string();
  if (step.nmi) machine_.events.nmi(id, rip, symbol);
  if (step.interrupt) machine_.events.interrupt(id, *step.interrupt, rip, symbol);
}

[[gnu::hot]] Result<void> ExitDispatch::dispatch(kvm::VcpuFd& cpu, VcpuExit& exit) {
  if (debug().tape().active()) [[unlikely]] {
    debug().tape().see(exit);
  }
  // The two that make a guest slow do without the table of functions behind visit().
  if (auto* const pio = std::get_if<PioExit>(&exit)) return on(cpu, *pio);
  if (auto* const mmio = std::get_if<MmioExit>(&exit)) return on(cpu, *mmio);
  return std::visit([&](auto& kind) { return on(cpu, kind); }, exit);
}

void ExitDispatch::host_error(Error error) {
  if (debug().tape().plays()) return stop_tape(error.message());
  machine_.stops.post(
      std::move(error).wrap(fmt::format("Run vCPU {}", static_cast<std::uint32_t>(id_))));
}

void ExitDispatch::stop(kvm::VcpuFd& cpu, StopReason reason, std::string detail,
                        std::uint32_t value, std::string report) {
  (void)cpu;
  if (debug().tape().plays()) return stop_tape(fmt::format("{} ({})", to_string(reason), detail));
  machine_.stops.post(StopInfo{machine_.call_it_panic_if_it_is(reason), id_, value,
                               std::move(detail), std::move(report)});
}

[[gnu::hot]] Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, PioExit& exit) {
  if (exit.is_write && !machine_.hypercalls.empty()) {
    if (const HypercallPort* const port = machine_.hypercall_at(exit.port)) {
      return on_hypercall(cpu, exit, *port);
    }
  }
  if (debug().tape().active()) [[unlikely]] {
    return access_on_tape(exit);
  }
  // A string instruction's items are separate accesses to one port.
  for (std::uint32_t i = 0; i < exit.count; ++i) {
    const auto item = exit.data.subspan(std::size_t{i} * exit.width, exit.width);
    if (exit.is_write) {
      machine_.pio.write(pio_cache_, exit.port, item);
    } else {
      machine_.pio.read(pio_cache_, exit.port, item);
    }
  }
  return {};
}

[[gnu::hot]] void ExitDispatch::read_mmio(std::uint64_t address, std::span<std::byte> data) {
  debug::TapeHead& tape = debug().tape();
  if (tape.active()) [[unlikely]] {
    return tape.read(data, [&] { ask_mmio(address, data); });
  }
  ask_mmio(address, data);
}

[[gnu::hot]] void ExitDispatch::ask_mmio(std::uint64_t address, std::span<std::byte> data) {
  if (machine_.user_irqchip != nullptr) {
    all_ones(data);
    if (machine_.user_irqchip->read(id_, address, data)) return;
  }
  machine_.mmio.read(mmio_cache_, address, data);
}

[[gnu::hot]] void ExitDispatch::write_mmio(std::uint64_t address, std::span<const std::byte> data) {
  if (debug().tape().plays()) [[unlikely]] {
    return;
  }
  if (machine_.user_irqchip != nullptr && machine_.user_irqchip->write(id_, address, data)) return;
  machine_.mmio.write(mmio_cache_, address, data);
}

[[gnu::hot]] Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, MmioExit& exit) {
  // KVM's emulator comes here with memory that it could not get at, too.
  const GuestRegion* const region = machine_.memory.find(exit.address);
  if (region != nullptr && region->kind() == RegionKind::kFile) {
    if (exit.is_write && region->read_only()) return {};  // as ROM
    return on_lost_memory(cpu);
  }
  if (region != nullptr && VMM_TRY(on_guarded(cpu, exit))) return {};
  if (exit.is_write) {
    write_mmio(exit.address.value, exit.data);
  } else {
    read_mmio(exit.address.value, exit.data);
  }
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, HltExit&) {
  if (machine_.user_irqchip != nullptr) {
    if (!debug().tape().plays()) machine_.user_irqchip->on_halt(id_);  // before_entry() waits
    return after_instruction(cpu);
  }
  stop(cpu, StopReason::kHalted,
       fmt::format("HLT before {:#x}, and this machine has no interrupt controllers",
                   VMM_TRY(cpu.registers()).rip));
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, ShutdownExit&) {
  stop(cpu, StopReason::kTripleFault, "an exception could not be delivered, nor its double fault",
       0);
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd&, IrqWindowExit&) { return {}; }

// Why it comes is done: on_exit() has taken CR8 over, and before_entry() looks for interrupts.
Result<void> ExitDispatch::on(kvm::VcpuFd&, TprExit&) { return {}; }

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, InterruptedExit&) {
  const debug::TapeHead& tape = debug().tape();
  if (!tape.active() || tape.in_instruction || tape.delivering) return {};
  if (VMM_TRY(cpu.registers()).rip != stepped_from_) stop_tape("the CPU went on without a step");
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, SystemEventExit& exit) {
  switch (exit.type) {
    case kSystemEventShutdown:
      stop(cpu, StopReason::kPowerOff, {});
      break;
    case kSystemEventReset:
      stop(cpu, StopReason::kReset, "the guest asked KVM for a reset");
      break;
    case kSystemEventCrash:
      stop(cpu, StopReason::kGuestPanic, "the guest reported a crash to KVM");
      break;
    default:
      stop(cpu, StopReason::kInternalError,
           fmt::format("KVM system event {} is not known", exit.type));
  }
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, FailEntryExit& exit) {
  stop(cpu, StopReason::kEntryFailure,
       fmt::format("the processor refused to enter the guest, hardware reason {:#x}",
                   exit.hardware_reason),
       static_cast<std::uint32_t>(exit.hardware_reason));
  return {};
}

ExitDispatch::Completion& ExitDispatch::completion() {
  if (!completion_) {
    completion_ = std::make_unique<Completion>(machine_, *this);
  }
  return *completion_;
}

void ExitDispatch::count_completed(std::string_view mnemonic, std::uint32_t ahead) {
  executed_ahead_.fetch_add(ahead, std::memory_order_relaxed);
  completed_.with([mnemonic](auto& counts) { ++counts[mnemonic]; });
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, EmulationFailureExit& exit) {
  if (VMM_TRY(on_planted(cpu))) return {};
  // Where there are no bytes there was nothing to fetch.
  if (id_ == VcpuId{0} && exit.size == 0) {
    const AtReset at = VMM_TRY(at_reset_vector(cpu, machine_.memory, machine_.pio, pio_cache_));
    if (at == AtReset::kReset) stop(cpu, StopReason::kReset, "the boot CPU was reset");
    if (at != AtReset::kElsewhere) return {};
  }
  if (!options_.complete_instructions) {
    stop(cpu, StopReason::kEmulationFailure, "KVM cannot emulate an instruction");
    return {};
  }
  completion::KvmCpu completed(
      cpu, debug().stepping() || debug().tape().active() || !debug().wish().slots.empty());
  auto completion_outcome =
      completion().completer.complete(completed, std::span(exit.bytes).first(exit.size));
  // An operand in a file that was cut, or in a block that was unplugged meanwhile.
  if (!completion_outcome &&
      (completion_outcome.error().code() == ErrorCode::kOutOfRange || machine_.lost_file())) {
    return on_lost_memory(cpu);
  }
  const completion::Outcome outcome = VMM_TRY(std::move(completion_outcome));
  if (const auto* finished = std::get_if<completion::Finished>(&outcome)) {
    count_completed(finished->mnemonic, finished->ahead);
    return after_instruction(cpu);
  }
  if (const auto* injected = std::get_if<completion::Injected>(&outcome)) {
    count_completed(injected->mnemonic, 0);
    if (interpreter_ && injected->software_interrupt) {
      interpreter_->software_interrupt_queued(injected->vector);
    } else if (interpreter_) {
      interpreter_->event_queued();
    }
  } else {
    const auto& cannot = std::get<completion::Cannot>(outcome);
    stop(cpu, StopReason::kEmulationFailure, cannot.reason, 0, cannot.report);
  }
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, InternalErrorExit& exit) {
  std::string data;
  for (const std::uint64_t word : std::span(exit.data).first(exit.words))
    data += fmt::format(" {:#x}", word);
  stop(cpu, StopReason::kInternalError,
       fmt::format("KVM internal error, suberror {}, data{}", exit.suberror, data));
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd&, IoapicEoiExit& exit) {
  if (machine_.split_irqchip != nullptr) machine_.split_irqchip->on_ioapic_eoi(exit.vector);
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, MsrExit& exit) {
  debug::TapeHead& tape = debug().tape();
  if (tape.plays()) return play_msr(cpu, exit);
  VMM_TRY(answer_msr(cpu, exit));
  if (tape.records()) tape.tape->add_msr(cpu.msr_answer());
  return {};
}

Result<void> ExitDispatch::answer_msr(kvm::VcpuFd& cpu, const MsrExit& exit) {
  if (machine_.user_irqchip != nullptr && VMM_TRY(machine_.user_irqchip->on_msr(cpu, exit))) {
    return {};
  }
  // Else only the quirk's MSRs are filtered; the answer is what the guest would have got.
  if (syscall_fixup_ && exit.is_write && exit.filtered) {
    const bool taken = VMM_TRY(syscall_fixup_->on_msr_write(cpu, exit.index, exit.value));
    cpu.answer_msr(exit.value, !taken);
    return {};
  }
  if (syscall_watch_ && exit.is_write && exit.filtered && exit.index == x86::kMsrLstar) {
    cpu.answer_msr(exit.value, !VMM_TRY(syscall_watch_->on_lstar(cpu, exit.value)));
    return {};
  }
  cpu.answer_msr(0, true);
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, MemoryFaultExit&) { return on_lost_memory(cpu); }

Result<void> ExitDispatch::on_lost_memory(kvm::VcpuFd& cpu) {
  constexpr const char* kCauses =
      "the host has no page for an access of the guest to its memory: memory that is not plugged "
      "(--memory-max), a full disk under a sparse file (--pmem), no huge page left, or a memory "
      "error";
  stop(cpu, StopReason::kMemoryFault, machine_.lost_file().value_or(kCauses));
  return {};
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, UnknownExit& exit) {
  stop(cpu, StopReason::kInternalError, fmt::format("KVM exit reason {} is not known", exit.reason),
       0);
  return {};
}

Result<void> ExitDispatch::refresh_quirks(kvm::VcpuFd& cpu) {
  const auto now = std::chrono::steady_clock::now();
  if (now - refreshed_ < kQuirkRefresh) return {};
  refreshed_ = now;
  return syscall_fixup_->refresh(cpu);
}

Result<void> ExitDispatch::restored(kvm::VcpuFd& cpu) {
  if (machine_.user_irqchip != nullptr) machine_.user_irqchip->restored(id_);
  if (syscall_watch_) VMM_TRY(syscall_watch_->resume(cpu));
  return syscall_fixup_ ? syscall_fixup_->resume(cpu) : Result<void>();
}

void ExitDispatch::add_completed(std::map<std::string, std::uint64_t>& by_mnemonic) const {
  completed_.with([&by_mnemonic](const auto& counts) {
    for (const auto& [mnemonic, count] : counts) by_mnemonic[std::string(mnemonic)] += count;
  });
}

std::string ExitDispatch::place_text(const kvm::VcpuFd& cpu, std::uint64_t rip) const {
  if (rip == 0) return {};
  const std::string name = name_of(cpu, rip);
  return fmt::format(" rip {:#x}{}{}", rip, name.empty() ? "" : " ", name);
}

std::string ExitDispatch::name_of(const kvm::VcpuFd& cpu, std::uint64_t rip) const {
  const debug::Symbols* const symbols = debugger_ == nullptr ? nullptr : debugger_->symbols();
  const std::uint64_t entry = symbols == nullptr ? 0 : cpu.msr(x86::kMsrLstar).value_or(0);
  const auto offset = entry == 0 ? std::nullopt : symbols->kernel_offset(entry);
  return offset ? symbols->name_of(rip - *offset) : std::string();
}

void ExitDispatch::trace(const kvm::VcpuFd& cpu, const VcpuExit& exit) const {
  std::string line =
      fmt::format("vcpu{} {}", static_cast<std::uint32_t>(id_), kExitNames[exit.index()]);
  if (const auto* pio = std::get_if<PioExit>(&exit)) {
    line +=
        fmt::format(" {} port {:#x} width {} count {} value {:#x}",
                    pio->is_write ? "write" : "read", pio->port, pio->width, pio->count,
                    load_le(pio->data.first(std::min<std::size_t>(pio->width, pio->data.size()))));
  } else if (const auto* mmio = std::get_if<MmioExit>(&exit)) {
    line += fmt::format(" {} gpa {} width {} value {:#x}", mmio->is_write ? "write" : "read",
                        mmio->address, mmio->data.size(), load_le(mmio->data));
  } else if (const auto* msr = std::get_if<MsrExit>(&exit)) {
    const auto answer = cpu.msr_answer();
    line += fmt::format(" {} {:#x}", msr->is_write ? "write" : "read", msr->index);
    if (msr->is_write || answer) {
      line += fmt::format(" value {:#x}", msr->is_write ? msr->value : *answer);
    }
    if (!answer) line += " refused";
  } else if (const auto* debug = std::get_if<DebugTrapExit>(&exit)) {
    line += fmt::format(" rip {:#x} dr6 {:#x}", debug->pc, debug->dr6);
  }
  // Of a debug exit the line has it.
  if (!std::holds_alternative<DebugTrapExit>(exit)) line += place_text(cpu, cpu.exit_rip());
  options_.trace(line);
}

Result<void> ExitDispatch::trace_syscall(const kvm::VcpuFd& cpu) const {
  options_.syscalls->entered(id_, VMM_TRY(cpu.registers()), VMM_TRY(cpu.system_registers()));
  return {};
}

Result<void> ExitDispatch::trace_return(const kvm::VcpuFd& cpu) const {
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  if (system.cpl() == 3) options_.syscalls->returning(id_, VMM_TRY(cpu.registers()), system);
  return {};
}

Result<bool> ExitDispatch::syscall_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit) {
  if (!syscall_watch_) return false;
  switch (VMM_TRY(syscall_watch_->on_debug_exit(cpu, exit))) {
    case SyscallWatch::Seen::kNothing:
      return false;
    case SyscallWatch::Seen::kEntry:
      VMM_TRY(trace_syscall(cpu));
      // The debugger's own breakpoint there is told before anything is stepped over.
      return !debug().has_breakpoint(exit.pc);
    case SyscallWatch::Seen::kStepped:
      break;
  }
  return !debug().stepping() && !debug().has_breakpoint(exit.pc) &&
         debug().watchpoint(exit.dr6) == nullptr;
}

}  // namespace vmm

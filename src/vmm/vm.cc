#include "vmm/vm.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "base/join.h"
#include "vmm/build_machine.h"
#include "vmm/collect_stats.h"
#include "vmm/crash_report.h"
#include "vmm/debug/debugger.h"
#include "vmm/early_kvm.h"
#include "vmm/event_loop.h"
#include "vmm/exit_dispatch.h"
#include "vmm/interpreter/line_table.h"
#include "vmm/kick.h"
#include "vmm/run_control.h"
#include "vmm/shadow_pages.h"
#include "vmm/sleep.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/trace/syscall_trace.h"
#include "vmm/until_loop.h"
#include "vmm/vcpu.h"
#include "vmm/vm_impl.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

// How often a running guest is looked at: whether all its CPUs sleep for ever, and for the quirk
// that follows its IDT.
constexpr std::chrono::milliseconds kLook{1000};
constexpr std::chrono::milliseconds kQuirkLook{100};

// What KVM_CAP_SET_GUEST_DEBUG2 says (linux/kvm.h, KVM_GUESTDBG_*).
constexpr std::uint32_t kUseSoftwareBreakpoints = 0x10000;
constexpr std::uint32_t kBlockInterrupts = 0x100000;

constexpr std::size_t kReportedExits = 16;

// The guest can be run on after these.
bool goes_on_after(StopReason reason) {
  return reason == StopReason::kDeadline || reason == StopReason::kCancelled ||
         reason == StopReason::kCondition;
}

// Ends that nobody meant, and whose cause is in the guest's state. A halt is most often on purpose.
bool deserves_report(StopReason reason) {
  switch (reason) {
    case StopReason::kGuestPanic:
    case StopReason::kWatchdog:
    case StopReason::kTripleFault:
    case StopReason::kEmulationFailure:
    case StopReason::kEntryFailure:
    case StopReason::kInternalError:
    case StopReason::kMemoryFault:
      return true;
    case StopReason::kPowerOff:
    case StopReason::kReset:
    case StopReason::kHalted:
    case StopReason::kDebugExit:
    case StopReason::kDeadline:
    case StopReason::kCancelled:
    case StopReason::kCondition:
      break;
  }
  return false;
}

}  // namespace

Vm::Impl::~Impl() {
  if (debugger) debugger->detach_machine();
  // Timers may raise interrupts, which may nudge a vCPU: they end before the vCPUs do.
  for (const auto& loop : loops) loop->stop();
  // The threads of vCPUs that stand end while KVM takes the machine apart: waking them takes as
  // long as a part of that.
  bool all_end = true;
  for (const auto& vcpu : vcpus) all_end = vcpu->finish_early() && all_end;
  if (!all_end) vcpus.clear();
  tracked.reset();
  control.reset();
  dispatches.clear();
  machine.reset();
}

Result<std::unique_ptr<Vm>> Vm::create(VmConfig config) {
  const std::vector<std::string> problems = validate(config);
  if (!problems.empty()) return fail(ErrorCode::kBadConfig, "{}", join(problems, "; "));
  const int kick_signal = VMM_TRY(install_kick_signal(config.kick_signal));

  auto impl = std::make_unique<Impl>();
  std::vector<EventLoop*> loops;
  for (std::uint32_t i = 0; i <= config.io_threads; ++i) {
    impl->loops.push_back(VMM_TRY(EventLoop::create(i == 0 ? "io" : fmt::format("io{}", i))));
    loops.push_back(impl->loops.back().get());
  }
  BuiltMachine built = VMM_TRY(build_machine(config, loops));
  impl->machine = std::move(built.machine);
  impl->plan = std::move(built.plan);
  for (EventLoop* const loop : loops) {
    loop->set_on_error(
        [&stops = impl->machine->stops](Error error) { stops.post(std::move(error)); });
  }
  if (impl->plan.interpret_kernel) {
    impl->machine->page_tables = std::make_unique<interpreter::TableMap>(
        impl->machine->memory, static_cast<std::uint32_t>(built.cpus.size()),
        [m = impl->machine.get()] { return drop_shadow_pages(*m); });
    const auto* const saved = std::get_if<SnapshotBoot>(&config.boot);
    impl->decoded_lines = saved != nullptr ? saved->snapshot->decoded_lines()
                                           : std::make_shared<interpreter::SharedLines>();
  }
  // Each process asks once.
  const std::uint8_t physical_bits =
      x86::physical_address_bits(VMM_TRY(impl->machine->system->supported_cpuid()));
  const bool shared = impl->machine->system->capabilities().sync_registers;
  std::shared_ptr<SyscallTrace> syscalls;
  if (config.trace_syscalls) {
    syscalls = std::make_shared<SyscallTrace>(impl->machine->memory, config.trace_syscalls);
    impl->traces_syscalls = true;
  }
  for (kvm::VcpuFd& fd : built.cpus) {
    const auto id = static_cast<VcpuId>(fd.id());
    impl->machine->exit_rings.push_back(std::make_unique<ExitRing>(config.recorded_exits));
    if (shared && (config.recorded_exits != 0 || config.trace)) fd.share_registers();
    impl->dispatches.push_back(std::make_unique<ExitDispatch>(
        id, *impl->machine,
        ExitDispatch::Options{
            .complete_instructions = impl->plan.complete_instructions,
            .physical_bits = physical_bits,
            .syscall_fixup = impl->plan.syscall_fixup,
            .interpret_kernel = impl->plan.interpret_kernel,
            .decoded_lines = impl->decoded_lines.get(),
            .is_device_msr = impl->plan.apic_msrs ? UserIrqchip::answers : ExitDispatch::no_msr,
            .no_hypercalls = impl->plan.hide_hypercalls,
            .trace = config.trace,
            .trace_cpuid = config.trace_cpuid,
            .syscalls = syscalls}));
    impl->vcpus.push_back(
        std::make_unique<Vcpu>(std::move(fd), *impl->dispatches.back(), kick_signal));
  }
  if (impl->machine->split_irqchip != nullptr) {
    impl->machine->split_irqchip->set_wake([first = impl->vcpus.front().get()] { first->nudge(); });
  }
  if (impl->machine->user_irqchip != nullptr) {
    impl->machine->user_irqchip->set_wake(
        [all = impl.get()](VcpuId id) { all->vcpus[static_cast<std::uint32_t>(id)]->nudge(); });
  }
  impl->control = std::make_unique<RunControl>(*impl->machine, impl->vcpus);
  impl->shape = shape_of(config, impl->plan, impl->machine->unsavable);
  impl->tracked.emplace(impl->machine->memory, impl->machine->ram_slots);
  if (const auto* const saved = std::get_if<SnapshotBoot>(&config.boot)) {
    VMM_TRY(impl->go_on_from(saved->snapshot));
  }
  if (impl->machine->interrupt_eventfds) VMM_TRY(impl->machine->interrupt_eventfds->start());
  return std::unique_ptr<Vm>(new Vm(std::move(impl)));
}

void Vm::attach_debugger(std::shared_ptr<debug::Debugger> debugger) {
  impl_->attach_debugger(std::move(debugger));
}

void Vm::Impl::attach_debugger(std::shared_ptr<debug::Debugger> wanted) {
  for (const auto& dispatch : dispatches) dispatch->set_debugger(wanted.get());
  const std::uint32_t flags = machine->system->capabilities().guest_debug2;
  wanted->attach_machine(
      *control,
      {.slots = debug::CpuDebug::kSlots - (plan.syscall_fixup || traces_syscalls ? 1U : 0U),
       .block_interrupts = (flags & kBlockInterrupts) != 0,
       .software_breakpoints = (flags & kUseSoftwareBreakpoints) != 0,
       .stats = [this] { return stats(); },
       .snapshot = [this] { return snapshot_at_rest(); },
       .reset_to = [this](const auto& to) { return reset_at_rest(to); },
       .put_back = [this](const auto& to, bool compare) { return put_back(to, compare); }});
  debugger = std::move(wanted);
}

void Vm::Impl::detach_debugger() {
  debugger->detach_machine();
  for (const auto& dispatch : dispatches) dispatch->set_debugger(nullptr);
  debugger.reset();
}

std::shared_ptr<EarlyKvm> Vm::prepare_kvm() { return std::make_shared<EarlyKvm>(); }

Vm::Vm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vm::~Vm() = default;

Result<StopInfo> Vm::run(const RunOptions& options) { return impl_->run(options); }

Result<StopInfo> Vm::Impl::run(const RunOptions& options) {
  std::unique_lock<std::mutex> running(run_mutex, std::try_to_lock);
  if (!running)
    return fail(ErrorCode::kBadState, "The guest is already being run by another thread");
  return run_locked(options);
}

Result<StopInfo> Vm::Impl::run_locked(const RunOptions& options) {
  post_lost_memory();
  // Who wants to be told is not to wait until the guest has ended.
  if (!options.on_started) lend_cpu();
  if (auto started = control->start(); !started) {
    take_cpu_back();
    return tl::unexpected<Error>(std::move(started).error());
  }
  active = true;
  if (options.on_started) options.on_started();
  std::optional<StopBoard::Stop> stop = wait_for_stop(options);
  auto paused = control->stop();
  take_cpu_back();
  active = false;
  VMM_TRY(std::move(paused));
  // A condition may be met while the CPUs are being stopped: it is of this run, not of the next.
  if (!stop) stop = machine->stops.condition();
  if (!stop) return StopInfo{.reason = StopReason::kDeadline, .detail = "the deadline passed"};
  machine->stops.mark_told();
  machine->stops.clear_cancelled();
  if (const Error* error = std::get_if<Error>(&*stop)) return tl::unexpected<Error>(*error);
  StopInfo info = std::get<StopInfo>(*stop);
  if (deserves_report(info.reason)) info.report = report_on(info);
  if (!goes_on_after(info.reason)) add_state(info);
  return info;
}

std::string Vm::Impl::report_on(const StopInfo& stop) const {
  std::string text = stop.report;
  if (!text.empty() && text.back() != '\n') text += '\n';
  const auto index = static_cast<std::size_t>(stop.vcpu);
  KernelNames names;
  const auto read = [&](kvm::VcpuFd& fd, ExitDispatch&) -> Result<void> {
    const CrashedCpu cpu{VMM_TRY(fd.registers()), VMM_TRY(fd.system_registers())};
    names = names_for(fd);
    // What completion has told begins with the registers.
    if (text.empty()) text = crash_state(machine->memory, stop.vcpu, cpu);
    text += crash_details(machine->memory, cpu, names);
    return {};
  };
  if (index >= vcpus.size() || !cpus().with(index, read)) {
    text += "(the vCPU's registers could not be read)\n";
  }
  return text + last_exits_text(*machine, kReportedExits, names);
}

KernelNames Vm::Impl::names_for(const kvm::VcpuFd& cpu) const {
  KernelNames names{.symbols = debugger ? debugger->symbols() : nullptr};
  if (names.symbols != nullptr) {
    names.offset = names.symbols->kernel_offset(cpu.msr(x86::kMsrLstar).value_or(0)).value_or(0);
  }
  return names;
}

void Vm::Impl::add_state(StopInfo& stop) const {
  const auto index = static_cast<std::size_t>(stop.vcpu);
  const auto read = [&](kvm::VcpuFd& fd, ExitDispatch&) -> Result<void> {
    const CrashedCpu cpu{VMM_TRY(fd.registers()), VMM_TRY(fd.system_registers())};
    stop.state = cpu_text(machine->memory, stop.vcpu, cpu, names_for(fd));
    return {};
  };
  if (stop.report.empty() && index < vcpus.size()) (void)cpus().with(index, read);
  stop.console = machine->com1->with([this](Uart16550&) { return machine->console.tail(); });
}

std::string Vm::describe(const StopInfo& stop) const {
  StopInfo all = stop;
  const auto look = impl_->may_look();
  if (look) impl_->add_state(all);
  return to_text(all);
}

std::optional<StopBoard::Stop> Vm::Impl::wait_for_stop(const RunOptions& options) {
  using std::chrono::steady_clock;
  const auto start = steady_clock::now();
  // A deadline beyond what the clock can count is none.
  const bool has_deadline =
      options.deadline && *options.deadline < std::chrono::hours(24 * 365 * 100);
  const auto deadline =
      has_deadline ? start + std::chrono::duration_cast<steady_clock::duration>(*options.deadline)
                   : steady_clock::time_point::max();
  auto next_sleep_look = start + kLook;
  for (;;) {
    if (machine->asleep) {
      if (auto done = look_after_sleep(); !done) machine->stops.post(std::move(done).error());
    }
    const bool often = plan.syscall_fixup || (debugger && debugger->wants_looks());
    const auto next_look = often ? steady_clock::now() + kQuirkLook : next_sleep_look;
    if (auto stop = wait_or_run(std::min(deadline, next_look))) return stop;
    const auto now = steady_clock::now();
    if (now >= deadline) return std::nullopt;
    if (debugger) debugger->look();
    if (now >= next_sleep_look) {
      next_sleep_look = now + kLook;
      if (!control->stands() && asleep_for_ever()) {
        return StopInfo{.reason = machine->call_it_panic_if_it_is(StopReason::kHalted),
                        .detail = "every CPU is halted with interrupts off"};
      }
    } else if (plan.syscall_fixup) {
      // An empty visit: the exit alone lets the quirk have its look.
      for (const auto& vcpu : vcpus) (void)vcpu->call([](kvm::VcpuFd&) {}, kVcpuTimeout);
    }
  }
}

// Two threads would have to be woken for each run(), the vCPU's and, at its end, this one. Always
// the same thread does it: kernels before 6.12 let the others wait when another one runs a CPU.
void Vm::Impl::lend_cpu() {
  if (vcpus.size() != 1) return;
  if (!runner) runner = std::this_thread::get_id();
  if (runner != std::this_thread::get_id()) return;
  lent = vcpus.front().get();
  lent->lend();
  machine->stops.set_listener(lent);
}

void Vm::Impl::take_cpu_back() {
  if (lent == nullptr) return;
  machine->stops.set_listener(nullptr);
  if (auto taken = std::exchange(lent, nullptr)->take_back(); !taken) {
    machine->stops.post(std::move(taken).error());
  }
}

std::optional<StopBoard::Stop> Vm::Impl::wait_or_run(std::chrono::steady_clock::time_point until) {
  if (lent == nullptr) return machine->stops.wait(until);
  // What comes after this look ends the turn.
  lent->begin_turns();
  if (auto stop = machine->stops.look()) return stop;
  const bool runs_on = lent->run_here(until);
  auto stop = machine->stops.look();
  // Paused by somebody else, who will resume it while this thread waits.
  if (!runs_on && !stop) take_cpu_back();
  return stop;
}

Result<void> Vm::Impl::look_after_sleep() {
  VMM_TRY(ask_for_format());
  return follow_sleep(*machine, plan, cpus(), *format);
}

bool Vm::Impl::asleep_for_ever() {
  if (machine->asleep) return false;
  if (machine->watchdog_counts()) return false;
  if (machine->user_irqchip != nullptr) return machine->user_irqchip->asleep_for_ever();
  // Only in-kernel chips keep a halted CPU inside KVM_RUN.
  if (plan.irqchip == IrqchipMode::kNone) return false;
  bool any_halted = false;
  for (const auto& vcpu : vcpus) {
    bool awake = true;
    bool halted = false;
    (void)vcpu->call(
        [&](kvm::VcpuFd& cpu) {
          const auto state = cpu.mp_state();
          const auto registers = cpu.registers();
          if (!state || !registers) return;
          halted = *state == kvm::MpState::kHalted && (registers->rflags & x86::kFlagIf) == 0;
          awake = !halted && *state != kvm::MpState::kUninitialized;
        },
        kVcpuTimeout);
    if (awake) return false;
    any_halted = any_halted || halted;
  }
  return any_halted;
}

UntilHost Vm::Impl::until_host() {
  return {.machine = *machine,
          .dispatches = dispatches,
          .run = [this](const RunOptions& options) { return run_locked(options); },
          .attach = [this](std::shared_ptr<debug::Debugger> own) -> Result<void> {
            if (debugger) {
              return fail(ErrorCode::kBadState,
                          "A debugger is attached: addresses cannot be waited for beside it");
            }
            attach_debugger(std::move(own));
            return {};
          },
          .detach = [this] { detach_debugger(); },
          .between = between};
}

Result<UntilResult> Vm::run_until(const std::vector<Condition>& conditions,
                                  std::chrono::nanoseconds deadline) {
  const auto lock = VMM_TRY(impl_->at_rest());
  return vmm::run_until(impl_->until_host(), conditions, deadline);
}

Result<StopInfo> Vm::step(VcpuId vcpu, std::chrono::nanoseconds deadline) {
  const auto lock = VMM_TRY(impl_->at_rest());
  return vmm::step(impl_->until_host(), vcpu, deadline);
}

Result<void> Vm::pause() { return impl_->control->pause(); }

Result<void> Vm::resume() { return impl_->control->resume(); }

bool Vm::paused() const { return impl_->control->paused(); }

Result<void> Vm::advance_time(std::chrono::nanoseconds by) {
  constexpr std::chrono::nanoseconds kMost = std::chrono::hours(24 * 365);
  if (by < by.zero() || by > kMost) {
    return fail(ErrorCode::kBadConfig, "Time goes on by a year at most, and not by {} ns",
                by.count());
  }
  if (!impl_->shape.clock_rate) {
    return fail(ErrorCode::kBadState, "The guest's time is the host's (ClockConfig::rate)");
  }
  impl_->machine->clock.advance(by);
  impl_->machine->timers.look_again();
  for (const auto& vcpu : impl_->vcpus) vcpu->nudge();  // their local APICs' timers
  return {};
}

void Vm::cancel() {
  impl_->machine->stops.post(
      StopInfo{.reason = StopReason::kCancelled, .detail = "the caller asked for an end"});
}

const std::vector<std::string>& Vm::decisions() const { return impl_->plan.decisions; }

}  // namespace vmm

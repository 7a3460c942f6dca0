#include "vmm/vm.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "base/join.h"
#include "vmm/build_machine.h"
#include "vmm/collect_stats.h"
#include "vmm/core/write_core.h"
#include "vmm/crash_report.h"
#include "vmm/debug/debugger.h"
#include "vmm/early_kvm.h"
#include "vmm/event_loop.h"
#include "vmm/exit_dispatch.h"
#include "vmm/kick.h"
#include "vmm/live_devices.h"
#include "vmm/run_control.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/restore.h"
#include "vmm/snapshot/save.h"
#include "vmm/snapshot/snapshot_file.h"
#include "vmm/snapshot/tracked_memory.h"
#include "vmm/stack_walk.h"
#include "vmm/until_loop.h"
#include "vmm/vcpu.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

constexpr std::chrono::seconds kVcpuTimeout = RunControl::kVcpuTimeout;
// How often a running guest is looked at: whether all its CPUs sleep for ever, and for the quirk
// that follows its IDT.
constexpr std::chrono::milliseconds kLook{1000};
constexpr std::chrono::milliseconds kQuirkLook{100};

// What KVM_CAP_SET_GUEST_DEBUG2 says (linux/kvm.h, KVM_GUESTDBG_*).
constexpr std::uint32_t kUseSoftwareBreakpoints = 0x10000;
constexpr std::uint32_t kBlockInterrupts = 0x100000;

constexpr std::size_t kReportedExits = 16;

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

class Vm::Impl {
 public:
  // Destroyed from the last to the first: vCPU threads end before what they use.
  std::vector<std::unique_ptr<EventLoop>> loops;  // the machine's own, then its I/O threads
  std::unique_ptr<Machine> machine;
  HostPlan plan;
  std::vector<std::unique_ptr<ExitDispatch>> dispatches;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::unique_ptr<RunControl> control;
  std::shared_ptr<debug::Debugger> debugger;  // may be null
  std::atomic<bool> active{false};            // a run() is
  std::atomic<bool> between{false};  // a run_until() is, and lets its caller look at the guest
  mutable std::mutex run_mutex;      // held by run(), and by whoever needs the CPUs at rest
  // For snapshots; with run_mutex held.
  MachineShape shape;
  std::shared_ptr<const Snapshot> origin;  // what memory was mapped from
  std::optional<kvm::VcpuStateFormat> format = {};
  std::optional<TrackedMemory> tracked = {};

  Impl() = default;
  // Timers may raise interrupts, which may nudge a vCPU: they end before the vCPUs do.
  ~Impl() {
    if (debugger) debugger->detach_machine();
    for (const auto& loop : loops) loop->stop();
  }

  Result<StopInfo> run(const RunOptions& options);
  Result<StopInfo> run_locked(const RunOptions& options);  // run_mutex held
  UntilHost until_host();
  VmStats stats() const { return collect_stats(*machine, vcpus, dispatches); }
  void attach_debugger(std::shared_ptr<debug::Debugger> wanted);
  void detach_debugger();
  // Whether the CPUs' state may be looked at; else it is kBadState.
  Result<std::unique_lock<std::mutex>> may_look() const;
  CpuAccess cpus() const { return {vcpus, dispatches}; }
  // The CPUs at rest, as long as this is held.
  Result<std::unique_lock<std::mutex>> at_rest() const;
  Result<void> go_on_from(const std::shared_ptr<const Snapshot>& snapshot);
  Result<void> check_memory() const;
  Result<void> ask_for_format();
  Result<WholeState> state();
  Result<std::shared_ptr<const Snapshot>> snapshot();
  Result<void> save(const std::string& path, const std::function<bool()>& cancelled);
  Result<void> write_core(const std::string& path, const std::function<bool()>& cancelled);
  Result<void> reset_to(const std::shared_ptr<const Snapshot>& snapshot);

 private:
  std::optional<StopBoard::Stop> wait_for_stop(const RunOptions& options);
  bool asleep_for_ever();
  // All that can be told of an end that nobody meant. The CPUs stand.
  std::string report_on(const StopInfo& stop) const;
};

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
  const bool shared = impl->machine->system->capabilities().sync_registers;
  for (kvm::VcpuFd& fd : built.cpus) {
    const auto id = static_cast<VcpuId>(fd.id());
    impl->machine->exit_rings.push_back(std::make_unique<ExitRing>(config.recorded_exits));
    if (shared && config.recorded_exits != 0) fd.share_registers();
    impl->dispatches.push_back(std::make_unique<ExitDispatch>(
        id, *impl->machine,
        ExitDispatch::Options{.complete_instructions = impl->plan.complete_instructions,
                              .syscall_fixup = impl->plan.syscall_fixup,
                              .trace = config.trace}));
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
  impl->tracked.emplace(impl->machine->memory, impl->machine->vm);
  if (const auto* const saved = std::get_if<SnapshotBoot>(&config.boot)) {
    VMM_TRY(impl->go_on_from(saved->snapshot));
  }
  return std::unique_ptr<Vm>(new Vm(std::move(impl)));
}

void Vm::attach_debugger(std::shared_ptr<debug::Debugger> debugger) {
  impl_->attach_debugger(std::move(debugger));
}

void Vm::Impl::attach_debugger(std::shared_ptr<debug::Debugger> wanted) {
  for (const auto& dispatch : dispatches) dispatch->set_debugger(wanted.get());
  const std::uint32_t flags = machine->system->capabilities().guest_debug2;
  wanted->attach_machine(*control,
                         {.slots = debug::CpuDebug::kSlots - (plan.syscall_fixup ? 1U : 0U),
                          .block_interrupts = (flags & kBlockInterrupts) != 0,
                          .software_breakpoints = (flags & kUseSoftwareBreakpoints) != 0,
                          .stats = [this] { return stats(); }});
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
  VMM_TRY(control->start());
  active = true;
  if (options.on_started) options.on_started();
  std::optional<StopBoard::Stop> stop = wait_for_stop(options);
  auto paused = control->stop();
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
  return info;
}

std::string Vm::Impl::report_on(const StopInfo& stop) const {
  std::string text = stop.report;
  if (!text.empty() && text.back() != '\n') text += '\n';
  const auto index = static_cast<std::size_t>(stop.vcpu);
  KernelNames names{.symbols = debugger ? debugger->symbols() : nullptr};
  const auto read = [&](kvm::VcpuFd& fd, ExitDispatch&) -> Result<void> {
    const CrashedCpu cpu{VMM_TRY(fd.registers()), VMM_TRY(fd.system_registers())};
    if (names.symbols != nullptr) {
      names.offset = names.symbols->kernel_offset(fd.msr(debug::kMsrLstar).value_or(0)).value_or(0);
    }
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
    const bool often = plan.syscall_fixup || (debugger && debugger->wants_looks());
    const auto next_look = often ? steady_clock::now() + kQuirkLook : next_sleep_look;
    if (auto stop = machine->stops.wait(std::min(deadline, next_look))) return stop;
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

bool Vm::Impl::asleep_for_ever() {
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

void Vm::cancel() {
  impl_->machine->stops.post(
      StopInfo{.reason = StopReason::kCancelled, .detail = "the caller asked for an end"});
}

std::size_t Vm::push_serial_input(std::span<const std::byte> bytes) {
  return impl_->machine->com1->with([&](Uart16550& uart) { return uart.push_input(bytes); });
}

const EventFd& Vm::serial_input_space() const { return impl_->machine->serial_input_space; }

void Vm::serial_output_ready() {
  impl_->machine->com1->with([](Uart16550& uart) { uart.poke(); });
}

std::size_t Vm::push_port_input(std::size_t port, std::span<const std::byte> bytes) {
  return vmm::push_port_input(*impl_->machine, port, bytes);
}

const EventFd* Vm::port_input_space(std::size_t port) const {
  const auto& ports = impl_->machine->console_ports;
  return port < ports.size() ? &ports[port]->input_space : nullptr;
}

void Vm::port_output_ready(std::size_t port) { vmm::port_output_ready(*impl_->machine, port); }

void Vm::set_port_size(std::size_t port, ConsoleSize size) {
  vmm::set_port_size(*impl_->machine, port, size);
}

void Vm::set_port_open(std::size_t port, bool open) {
  vmm::set_port_open(*impl_->machine, port, open);
}

const GuestMemory& Vm::memory() const { return impl_->machine->memory; }

Result<std::unique_lock<std::mutex>> Vm::Impl::may_look() const {
  // Without the lock then: a run() that begins waits for the pause's end as well.
  if (between || control->paused()) return std::unique_lock<std::mutex>();
  std::unique_lock<std::mutex> lock(run_mutex, std::try_to_lock);
  if (!lock) {
    return fail(ErrorCode::kBadState, "The guest is running: pause it first");
  }
  return lock;
}

namespace {

Result<StackSample> sample_stack(const kvm::VcpuFd& cpu, VcpuId id, const GuestMemory& memory,
                                 std::size_t most_frames) {
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  StackSample sample{.vcpu = id, .user = system.cpl() == 3, .frames = {registers.rip}};
  const auto callers = callers_of(memory, registers, system, most_frames - 1);
  sample.frames.insert(sample.frames.end(), callers.begin(), callers.end());
  return sample;
}

Result<void> check_id(const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id) {
  if (static_cast<std::uint32_t>(id) < vcpus.size()) return {};
  return fail(ErrorCode::kOutOfRange, "There is no vCPU {}: this machine has {}",
              static_cast<std::uint32_t>(id), vcpus.size());
}

// Runs `fn` on the vCPU's thread and hands back what it returned.
template <typename Fn>
auto on_vcpu(const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id, Fn fn)
    -> std::invoke_result_t<Fn, kvm::VcpuFd&> {
  VMM_TRY(check_id(vcpus, id));
  // Shared with the closure, which outlives this call if the vCPU does not answer in time.
  auto answer = std::make_shared<std::optional<std::invoke_result_t<Fn, kvm::VcpuFd&>>>();
  VMM_TRY(vcpus[static_cast<std::uint32_t>(id)]->call(
      [answer, fn](kvm::VcpuFd& cpu) { *answer = fn(cpu); }, kVcpuTimeout));
  return std::move(**answer);
}

Result<PagingContext> paging_of(kvm::VcpuFd& cpu) {
  const x86::Registers general = VMM_TRY(cpu.registers());
  PagingContext context = x86::paging_context(VMM_TRY(cpu.system_registers()), general.rflags);
  context.cpl = 0;
  context.rflags |= x86::kFlagAc;
  return context;
}

Result<void> judge(const VirtualAccess& access) {
  if (access) return {};
  return fail(ErrorCode::kOutOfRange, "{} {:#x}",
              access.outcome == VirtualAccess::Outcome::kFault
                  ? "The guest's page tables map nothing, or nothing writable, at"
                  : "There is no RAM behind the virtual address",
              access.walk.address.value);
}

}  // namespace

Result<x86::Registers> Vm::registers(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.registers(); });
}

Result<x86::SystemRegisters> Vm::system_registers(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.system_registers(); });
}

Result<void> Vm::set_registers(VcpuId vcpu, const x86::Registers& registers) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu,
                 [registers](kvm::VcpuFd& cpu) { return cpu.set_registers(registers); });
}

Result<void> Vm::set_system_registers(VcpuId vcpu, const x86::SystemRegisters& registers) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu,
                 [registers](kvm::VcpuFd& cpu) { return cpu.set_system_registers(registers); });
}

Result<std::uint64_t> Vm::msr(VcpuId vcpu, std::uint32_t index) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [index](kvm::VcpuFd& cpu) { return cpu.msr(index); });
}

Result<void> Vm::set_msr(VcpuId vcpu, std::uint32_t index, std::uint64_t value) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [index, value](kvm::VcpuFd& cpu) {
    const std::array<kvm::Msr, 1> msrs{{{index, value}}};
    return cpu.set_msrs(msrs);
  });
}

Result<x86::XsaveArea> Vm::xsave(VcpuId vcpu) const {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [](kvm::VcpuFd& cpu) { return cpu.xsave(); });
}

Result<void> Vm::set_xsave(VcpuId vcpu, const x86::XsaveArea& area) {
  const auto look = VMM_TRY(impl_->may_look());
  return on_vcpu(impl_->vcpus, vcpu, [area](kvm::VcpuFd& cpu) { return cpu.set_xsave(area); });
}

Result<PageWalk> Vm::walk(VcpuId vcpu, Gva address, AccessKind access) const {
  const auto look = VMM_TRY(impl_->may_look());
  const PagingContext context = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return walk_pages(memory(), context, address, access);
}

Result<void> Vm::read_virtual(VcpuId vcpu, Gva from, std::span<std::byte> bytes) const {
  const auto look = VMM_TRY(impl_->may_look());
  const PagingContext context = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return judge(vmm::read_virtual(memory(), context, from, bytes));
}

Result<void> Vm::write_virtual(VcpuId vcpu, Gva to, std::span<const std::byte> bytes) {
  const auto look = VMM_TRY(impl_->may_look());
  const PagingContext context = VMM_TRY(on_vcpu(impl_->vcpus, vcpu, paging_of));
  return judge(vmm::write_virtual(memory(), context, to, bytes));
}

VmStats Vm::stats() const { return impl_->stats(); }

std::vector<std::vector<ExitRecord>> Vm::last_exits(std::size_t most) const {
  std::vector<std::vector<ExitRecord>> all;
  for (const auto& ring : impl_->machine->exit_rings) all.push_back(ring->last(most));
  return all;
}

Result<std::vector<StackSample>> Vm::sample_stacks(std::size_t most_frames) const {
  std::vector<StackSample> samples;
  for (const auto& vcpu : impl_->vcpus) {
    // Shared with the closure, which may outlive this call.
    auto answer = std::make_shared<Result<StackSample>>(StackSample{});
    const auto look = [answer, most_frames, id = vcpu->id(),
                       &memory = impl_->machine->memory](kvm::VcpuFd& cpu) {
      *answer = sample_stack(cpu, id, memory, most_frames);
    };
    VMM_TRY(vcpu->call(look, kVcpuTimeout));
    samples.push_back(VMM_TRY(std::move(*answer)));
  }
  return samples;
}

VmStatus Vm::status() const {
  VmStatus status{.running = impl_->active,
                  .cpus = static_cast<std::uint32_t>(impl_->vcpus.size()),
                  .memory = impl_->machine->memory.size()};
  add_device_status(*impl_->machine, status);
  return status;
}

Result<void> Vm::set_balloon(std::uint64_t bytes) {
  return vmm::set_balloon(*impl_->machine, bytes);
}

Result<void> Vm::set_memory(std::uint64_t bytes) { return vmm::set_memory(*impl_->machine, bytes); }

Result<std::uint64_t> Vm::refresh_disk(std::string_view name) {
  return vmm::refresh_disk(*impl_->machine, name);
}

Result<void> Vm::limit_disk(std::string_view name, const BlockRates& rates) {
  return vmm::limit_disk(*impl_->machine, name, rates);
}

Result<void> Vm::set_link(std::string_view name, bool up) {
  return vmm::set_link(*impl_->machine, name, up);
}

Result<std::string> Vm::add_disk(VirtioDiskConfig disk) {
  return vmm::add_device(*impl_->machine, std::move(disk));
}

Result<std::string> Vm::add_net(VirtioNetConfig net) {
  return vmm::add_device(*impl_->machine, std::move(net));
}

std::future<Result<void>> Vm::remove_disk(std::string_view name, const Unplug& how) {
  return vmm::remove_disk(*impl_->machine, name, how);
}

std::future<Result<void>> Vm::remove_net(std::string_view name, const Unplug& how) {
  return vmm::remove_net(*impl_->machine, name, how);
}

Result<std::unique_lock<std::mutex>> Vm::Impl::at_rest() const {
  std::unique_lock<std::mutex> lock(run_mutex, std::try_to_lock);
  if (!lock) return fail(ErrorCode::kBadState, "The guest is running");
  return lock;
}

Result<void> Vm::Impl::go_on_from(const std::shared_ptr<const Snapshot>& snapshot) {
  const MachineState& saved = snapshot->state().machine;
  VMM_TRY(check_fits(shape, saved.shape));
  origin = snapshot;
  VMM_TRY(ask_for_format());
  return restore_state(*machine, snapshot->state(), cpus(), *format,
                       {.fresh = true, .catch_up = !saved.shape.frozen_clock});
}

Result<void> Vm::Impl::ask_for_format() {
  if (!format) format.emplace(VMM_TRY(vcpu_format(*machine, plan)));
  return {};
}

// The guest's memory is its own, without what a debugger has put there.
Result<void> Vm::Impl::check_memory() const {
  if (!debugger || !debugger->wants_looks()) return {};
  return fail(ErrorCode::kBadState,
              "A debugger has put breakpoints into the guest's memory: remove them first");
}

Result<WholeState> Vm::Impl::state() {
  VMM_TRY(check_memory());
  VMM_TRY(check_savable(*machine));
  VMM_TRY(ask_for_format());
  VMM_TRY(bring_to_rest(*machine, cpus()));
  return save_state(*machine, shape, cpus(), *format);
}

Result<std::shared_ptr<const Snapshot>> Vm::Impl::snapshot() {
  const auto lock = VMM_TRY(at_rest());
  WholeState whole = VMM_TRY(state());
  const RamImage* const base = origin ? &origin->ram() : nullptr;
  UniqueFd file = VMM_TRY(RamImage::create_memory_file(machine->memory.size()));
  RamImage ram = VMM_TRY(RamImage::copy_of(machine->memory, base, std::move(file), {}));
  auto made = std::make_shared<const Snapshot>(std::move(whole), std::move(ram), quirks_of(plan));
  VMM_TRY(tracked->begin(made));
  return made;
}

Result<void> Vm::Impl::save(const std::string& path, const std::function<bool()>& cancelled) {
  auto lock = VMM_TRY(at_rest());
  const WholeState whole = VMM_TRY(state());
  SnapshotFile file = VMM_TRY(SnapshotFile::create(path));
  const RamImage* const base = origin ? &origin->ram() : nullptr;
  UniqueFd memory = VMM_TRY(file.ram_file());
  const RamImage ram = VMM_TRY(RamImage::copy_of(
      machine->memory, base, std::move(memory),
      {.offset = SnapshotFile::kRamOffset, .checksums = true, .cancelled = cancelled}));
  lock.unlock();  // the disk may take its time
  return file.finish(whole, ram);
}

Result<void> Vm::Impl::write_core(const std::string& path, const std::function<bool()>& cancelled) {
  auto lock = VMM_TRY(at_rest());
  VMM_TRY(check_memory());
  return vmm::write_core(*machine, cpus(), path,
                         {.base = origin ? &origin->ram() : nullptr,
                          .cancelled = cancelled,
                          .memory_written = [&lock] { lock.unlock(); }});
}

Result<void> Vm::Impl::reset_to(const std::shared_ptr<const Snapshot>& snapshot) {
  const auto lock = VMM_TRY(at_rest());
  VMM_TRY(check_memory());
  VMM_TRY(check_savable(*machine));
  VMM_TRY(check_fits(shape, snapshot->state().machine.shape));
  VMM_TRY(ask_for_format());
  VMM_TRY(bring_to_rest(*machine, cpus()));
  auto done = tracked->reset_to(snapshot);
  if (done) done = restore_state(*machine, snapshot->state(), cpus(), *format, {});
  // Neither this machine nor that: it must not run.
  if (!done) machine->stops.reset(StopBoard::Stop(done.error()));
  return done;
}

Result<std::shared_ptr<const Snapshot>> Vm::snapshot() { return impl_->snapshot(); }

Result<void> Vm::save(const std::string& path, const std::function<bool()>& cancelled) {
  return with_context(impl_->save(path, cancelled), "Save the machine to " + path);
}

Result<void> Vm::write_core(const std::string& path, const std::function<bool()>& cancelled) {
  return with_context(impl_->write_core(path, cancelled),
                      "Write the guest to the core file " + path);
}

Result<void> Vm::reset_to(const std::shared_ptr<const Snapshot>& snapshot) {
  return impl_->reset_to(snapshot);
}

Result<std::unique_ptr<Vm>> Vm::clone(const std::function<Result<void>(VmConfig&)>& equip) {
  VmConfig config = Snapshot::config(VMM_TRY(snapshot()));
  if (equip) VMM_TRY(equip(config));
  return create(std::move(config));
}

const std::vector<std::string>& Vm::decisions() const { return impl_->plan.decisions; }

}  // namespace vmm

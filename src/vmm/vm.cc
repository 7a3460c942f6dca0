#include "vmm/vm.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "vmm/build_machine.h"
#include "vmm/early_kvm.h"
#include "vmm/event_loop.h"
#include "vmm/exit_dispatch.h"
#include "vmm/kick.h"
#include "vmm/live_devices.h"
#include "vmm/vcpu.h"

namespace vmm {
namespace {

// A vCPU answers between two instructions; only a host in deep trouble needs longer.
constexpr std::chrono::seconds kVcpuTimeout{10};
// How often a running guest is looked at: whether all its CPUs sleep for ever, and for the quirk
// that follows its IDT.
constexpr std::chrono::milliseconds kLook{1000};
constexpr std::chrono::milliseconds kQuirkLook{100};

}  // namespace

class Vm::Impl {
 public:
  // Destroyed from the last to the first: vCPU threads end before what they use.
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Machine> machine;
  HostPlan plan;
  std::vector<std::unique_ptr<ExitDispatch>> dispatches;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::atomic<bool> active{false};  // a run() is
  mutable std::mutex run_mutex;     // held by run(), and by whoever needs the CPUs at rest

  Impl() = default;
  // Timers may raise interrupts, which may nudge a vCPU: they end before the vCPUs do.
  ~Impl() {
    if (loop) loop->stop();
  }

  Result<StopInfo> run(const RunOptions& options);

 private:
  std::optional<StopBoard::Stop> wait_for_stop(const RunOptions& options);
  bool asleep_for_ever();
  Result<void> pause_all();
};

Result<std::unique_ptr<Vm>> Vm::create(VmConfig config) {
  const std::vector<std::string> problems = validate(config);
  if (!problems.empty()) return fail(ErrorCode::kBadConfig, "{}", fmt::join(problems, "; "));
  const int kick_signal = VMM_TRY(install_kick_signal(config.kick_signal));

  auto impl = std::make_unique<Impl>();
  impl->loop = VMM_TRY(EventLoop::create());
  BuiltMachine built = VMM_TRY(build_machine(config, *impl->loop));
  impl->machine = std::move(built.machine);
  impl->plan = std::move(built.plan);
  for (kvm::VcpuFd& fd : built.cpus) {
    const auto id = static_cast<VcpuId>(fd.id());
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
  return std::unique_ptr<Vm>(new Vm(std::move(impl)));
}

std::shared_ptr<EarlyKvm> Vm::prepare_kvm() { return std::make_shared<EarlyKvm>(); }

Vm::Vm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vm::~Vm() = default;

Result<StopInfo> Vm::run(const RunOptions& options) { return impl_->run(options); }

Result<StopInfo> Vm::Impl::run(const RunOptions& options) {
  std::unique_lock<std::mutex> running(run_mutex, std::try_to_lock);
  if (!running)
    return fail(ErrorCode::kBadState, "The guest is already being run by another thread");
  VMM_TRY(machine->doorbells.start());
  machine->clock.start();
  machine->timers.start();
  for (const auto& vcpu : vcpus) vcpu->resume();
  active = true;
  if (options.on_started) options.on_started();
  const std::optional<StopBoard::Stop> stop = wait_for_stop(options);
  auto paused = pause_all();
  active = false;
  machine->doorbells.stop();
  machine->timers.stop();
  machine->clock.stop();
  VMM_TRY(std::move(paused));
  if (!stop) return StopInfo{.reason = StopReason::kDeadline, .detail = "the deadline passed"};
  machine->stops.clear_cancelled();
  if (const Error* error = std::get_if<Error>(&*stop)) return tl::unexpected<Error>(*error);
  return std::get<StopInfo>(*stop);
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
    const auto next_look = plan.syscall_fixup ? steady_clock::now() + kQuirkLook : next_sleep_look;
    if (auto stop = machine->stops.wait(std::min(deadline, next_look))) return stop;
    const auto now = steady_clock::now();
    if (now >= deadline) return std::nullopt;
    if (now >= next_sleep_look) {
      next_sleep_look = now + kLook;
      if (asleep_for_ever()) {
        return StopInfo{.reason = machine->call_it_panic_if_it_is(StopReason::kHalted),
                        .detail = "every CPU is halted with interrupts off"};
      }
    } else {
      // An empty visit: the exit alone lets the quirk have its look.
      for (const auto& vcpu : vcpus) (void)vcpu->call([](kvm::VcpuFd&) {}, kVcpuTimeout);
    }
  }
}

bool Vm::Impl::asleep_for_ever() {
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

Result<void> Vm::Impl::pause_all() {
  for (const auto& vcpu : vcpus) vcpu->request_pause();
  for (const auto& vcpu : vcpus) VMM_TRY(vcpu->wait_paused(kVcpuTimeout));
  return {};
}

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

const GuestMemory& Vm::memory() const { return impl_->machine->memory; }

namespace {

Result<void> check_id(const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id) {
  if (static_cast<std::uint32_t>(id) < vcpus.size()) return {};
  return fail(ErrorCode::kOutOfRange, "There is no vCPU {}: this machine has {}",
              static_cast<std::uint32_t>(id), vcpus.size());
}

// Runs `fn` on the vCPU's thread and hands back what it returned.
template <typename Fn>
auto on_vcpu(std::mutex& run_mutex, const std::vector<std::unique_ptr<Vcpu>>& vcpus, VcpuId id,
             Fn fn) -> std::invoke_result_t<Fn, kvm::VcpuFd&> {
  VMM_TRY(check_id(vcpus, id));
  std::unique_lock<std::mutex> at_rest(run_mutex, std::try_to_lock);
  if (!at_rest) return fail(ErrorCode::kBadState, "The guest is running");
  // Shared with the closure, which outlives this call if the vCPU does not answer in time.
  auto answer = std::make_shared<std::optional<std::invoke_result_t<Fn, kvm::VcpuFd&>>>();
  VMM_TRY(vcpus[static_cast<std::uint32_t>(id)]->call(
      [answer, fn](kvm::VcpuFd& cpu) { *answer = fn(cpu); }, kVcpuTimeout));
  return std::move(**answer);
}

}  // namespace

Result<x86::Registers> Vm::registers(VcpuId vcpu) const {
  return on_vcpu(impl_->run_mutex, impl_->vcpus, vcpu,
                 [](kvm::VcpuFd& cpu) { return cpu.registers(); });
}

Result<x86::SystemRegisters> Vm::system_registers(VcpuId vcpu) const {
  return on_vcpu(impl_->run_mutex, impl_->vcpus, vcpu,
                 [](kvm::VcpuFd& cpu) { return cpu.system_registers(); });
}

Result<void> Vm::set_registers(VcpuId vcpu, const x86::Registers& registers) {
  return on_vcpu(impl_->run_mutex, impl_->vcpus, vcpu,
                 [registers](kvm::VcpuFd& cpu) { return cpu.set_registers(registers); });
}

VmStats Vm::stats() const {
  VmStats stats;
  for (std::size_t kind = 0; kind < kExitNames.size(); ++kind) {
    std::uint64_t count = 0;
    for (const auto& dispatch : impl_->dispatches) count += dispatch->count(kind);
    if (count != 0) stats.exits.emplace(kExitNames[kind], count);
  }
  for (const auto& dispatch : impl_->dispatches) {
    dispatch->add_completed(stats.completed_by_mnemonic);
    stats.executed_ahead += dispatch->executed_ahead();
  }
  for (const auto& [mnemonic, count] : stats.completed_by_mnemonic)
    stats.completed_instructions += count;
  for (const Bus* bus : {&impl_->machine->pio, &impl_->machine->mmio}) {
    const BusStats counts = bus->stats();
    stats.unclaimed += counts.unclaimed_reads + counts.unclaimed_writes + counts.refused_reads +
                       counts.refused_writes;
  }
  for (const auto& vcpu : impl_->vcpus) stats.kicks += vcpu->kicks();
  if (impl_->machine->user_irqchip != nullptr) {
    stats.held_ticks = impl_->machine->user_irqchip->held_ticks();
  }
  return stats;
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

Result<void> Vm::set_link(std::string_view name, bool up) {
  return vmm::set_link(*impl_->machine, name, up);
}

const std::vector<std::string>& Vm::decisions() const { return impl_->plan.decisions; }

}  // namespace vmm

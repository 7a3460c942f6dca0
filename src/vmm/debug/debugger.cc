#include "vmm/debug/debugger.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "memory/page_walk.h"
#include "vmm/debug/monitor.h"
#include "vmm/debug/symbols.h"
#include "vmm/run_control.h"
#include "vmm/vm.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/paging_context.h"

namespace vmm::debug {
namespace {

// A guest that resets has its next machine within this, or the host is in trouble.
constexpr std::chrono::seconds kMachineTimeout{15};

}  // namespace

PagingContext all_seeing(const x86::SystemRegisters& system, std::uint64_t rflags) {
  PagingContext context = x86::privileged_context(system, rflags);
  context.pkru = 0;
  return context;
}

Result<std::shared_ptr<Debugger>> Debugger::create(Options options) {
  auto bell = std::make_shared<StopBell>(VMM_TRY(EventFd::create()));
  return std::shared_ptr<Debugger>(new Debugger(std::move(options), std::move(bell)));
}

Debugger::Debugger(Options options, std::shared_ptr<StopBell> bell)
    : options_(std::move(options)),
      bell_(std::move(bell)),
      wait_(options_.wait),
      user_code_stops_(options_.user_code_stops) {}

Debugger::~Debugger() = default;

// ---- the Vm's side

void Debugger::attach_machine(RunControl& control, Facts facts) {
  const std::lock_guard lock(mutex_);
  control_ = &control;
  control.let_time_go_on(options_.time_goes_on);
  facts_ = std::move(facts);
  wishes_.clear();
  contexts_.clear();
  lifted_ = false;
  crash_.reset();
  if (std::exchange(wait_, false) || holding_) {
    holding_ = true;
    (void)control.hold();
  }
  // Memory is another one now: what can be found in it is planted there, the rest waits.
  for (const Breakpoints::Entry& old : breakpoints_.take_all()) {
    auto entry = place(0, old.point);
    if (entry) {
      breakpoints_.add(*std::move(entry));
    } else {
      options_.log(LogLevel::kWarning, "gdb", "the breakpoint at {:#x} is lost: {}",
                   old.point.address, entry.error().message());
    }
  }
  if (!breakpoints_.empty()) {
    const std::vector<ResumeAction> actions(control.vcpus().size(),
                                            {ResumeAction::Kind::kContinue});
    (void)guard_pages();
    (void)set_wishes(actions);
  }
  changed_.notify_all();
}

void Debugger::detach_machine() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return;
  over_.reset();
  history_ = {};
  leave_memory();
  reported_.with([](auto& events) { events.clear(); });
  control_->let_time_go_on(false);
  control_ = nullptr;
}

void Debugger::look() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return;
  if (!over_ && !lifted_) (void)planted_.renew(control_->machine().memory);
  if (!timed_ || holding_ || std::chrono::steady_clock::now() - last_checkpoint_ < every_) return;
  checkpoint_due_ = true;
  bell_->ring();
}

std::shared_ptr<StopBell> Debugger::note(StopEvent event) {
  if (options_.on_report) options_.on_report(event);
  reported_.with([&event](auto& events) {
    const bool known = std::any_of(events.begin(), events.end(),
                                   [&](const StopEvent& e) { return e.cpu == event.cpu; });
    if (!known) events.push_back(std::move(event));
  });
  return bell_;
}

// ---- the server's side

bool Debugger::await_step() noexcept {
  {
    const std::lock_guard lock(mutex_);
    const bool steps = std::any_of(asked_.begin(), asked_.end(), [](const ResumeAction& action) {
      return action.kind == ResumeAction::Kind::kStep;
    });
    if (!steps) return false;
  }
  return bell_->listen();
}

std::optional<StopEvent> Debugger::take_stop() {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return std::nullopt;
  bell_->heard();
  // A guest that a debugger holds is its to look at; one that has stopped has something to tell.
  const bool due = std::exchange(checkpoint_due_, false) && !holding_ && !over_;
  if (!due && reported_.with([](auto& events) { return events.empty(); })) return std::nullopt;
  holding_ = true;
  (void)control_->hold();
  contexts_.clear();
  std::vector<StopEvent> events = reported_.with([](auto& all) { return std::exchange(all, {}); });
  if (events.empty()) {
    make_due_checkpoint();
    const auto gone_on = go_on(asked_);
    if (gone_on) return std::nullopt;
    return StopEvent{.note = gone_on.error().message()};
  }
  return judge(std::move(events));
}

void Debugger::report_crash(const StopInfo& stop) {
  {
    const std::lock_guard lock(mutex_);
    crash_ = stop;
    holding_ = true;
    contexts_.clear();
    if (control_ != nullptr) (void)control_->hold();
  }
  reported_.with([](auto& events) { events.clear(); });
  report({.kind = StopKind::kCrashed,
          .cpu = static_cast<unsigned>(stop.vcpu),
          .note = fmt::format("The guest cannot go on: {}{}{}", to_string(stop.reason),
                              stop.detail.empty() ? "" : ", ", stop.detail)});
}

void Debugger::give_up() {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
  changed_.notify_all();
}

Result<RunControl*> Debugger::machine() const {
  if (control_ != nullptr) return control_;
  return fail(ErrorCode::kBadState, "The machine is being started");
}

unsigned Debugger::cpus() const {
  const std::lock_guard lock(mutex_);
  return control_ == nullptr ? 1 : static_cast<unsigned>(control_->vcpus().size());
}

Result<StopEvent> Debugger::interrupt() {
  std::unique_lock lock(mutex_);
  holding_ = true;  // a machine that is being started is not to run away
  changed_.wait_for(lock, kMachineTimeout, [this] { return control_ != nullptr || given_up_; });
  RunControl* const control = VMM_TRY(machine());
  VMM_TRY(control->hold());
  contexts_.clear();
  if (history_.search) {
    history_.past->tick = head().at.tick;
    history_.search.reset();
    reported_.with([](auto& events) { events.clear(); });
  }
  // One of those that were let go: the debugger may have kept the others.
  const auto first = std::find_if(asked_.begin(), asked_.end(), [](const ResumeAction& action) {
    return action.kind != ResumeAction::Kind::kStay;
  });
  StopEvent event;
  if (first != asked_.end()) event.cpu = static_cast<unsigned>(first - asked_.begin());
  if (crash_ && !history_.past) {
    event = {.kind = StopKind::kCrashed,
             .cpu = static_cast<unsigned>(crash_->vcpu),
             .note = fmt::format("The guest cannot go on: {}", to_string(crash_->reason))};
  }
  // A CPU that stopped at this very moment has the better reason, unless nobody wants to know it.
  const auto over = std::exchange(over_, std::nullopt);
  if (over) (void)planted_.renew(control->machine().memory);
  for (StopEvent& other : reported_.with([](auto& all) { return std::exchange(all, {}); })) {
    const bool own_step = over && other.kind == StopKind::kStep && other.cpu == *over;
    if (own_step || !matters(other)) continue;
    event = other.kind == StopKind::kTapeTrouble ? *on_tape_stop(other) : std::move(other);
    break;
  }
  return event;
}

Result<void> Debugger::check_steps(std::span<const ResumeAction> actions) {
  for (unsigned i = 0; i < actions.size(); ++i) {
    const auto kind = actions[i].kind;
    if (kind != ResumeAction::Kind::kStep && kind != ResumeAction::Kind::kStepRange) continue;
    if (VMM_TRY(user_code_stops())) return {};
    const auto system = on_cpu(i, [](kvm::VcpuFd& fd) { return fd.system_registers(); });
    if (VMM_TRY(system).cpl() == 3) {
      return fail(ErrorCode::kUnsupported, "CPU {} is in user code: {}", i, kNoUserCode);
    }
  }
  return {};
}

Result<void> Debugger::set_wishes(std::span<const ResumeAction> actions) {
  const auto& vcpus = VMM_TRY(machine())->vcpus();
  const std::vector<kvm::DebugSlot> slots = breakpoints_.slots();
  std::vector<CpuWish> known = std::exchange(wishes_, {});
  known.resize(vcpus.size());
  for (unsigned i = 0; i < vcpus.size(); ++i) {
    const ResumeAction action = i < actions.size() ? actions[i] : ResumeAction{};
    CpuWish wish{.attached = true,
                 .planted = !planted_.empty(),
                 .watched = !watched_.empty(),
                 .software_breakpoints = facts_.software_breakpoints && !planted_.empty(),
                 .slots = slots};
    if (over_) {
      // Neither in memory nor in registers: they are what is stepped over.
      wish.planted = wish.software_breakpoints = false;
      wish.slots.clear();
    }
    if (taped()) {
      wish.planted = wish.watched = wish.software_breakpoints = false;
      wish.slots.clear();
    }
    wish.step =
        action.kind == ResumeAction::Kind::kStep || action.kind == ResumeAction::Kind::kStepRange;
    wish.block_interrupts = facts_.block_interrupts;
    if (action.kind == ResumeAction::Kind::kStepRange) {
      wish.range_begin = action.begin;
      wish.range_end = action.end;
    }
    // One that was stopped within a step over a breakpoint forgets that with the next wish.
    if (known[i] == wish && !lifted_) continue;
    CpuDebug& debug = vcpus[i]->debug();
    VMM_TRY(on_cpu(i, [&debug, wish](kvm::VcpuFd& cpu) { return debug.set_wish(cpu, wish); }));
    known[i] = wish;
  }
  wishes_ = std::move(known);
  lifted_ = false;
  return {};
}

Result<void> Debugger::resume(std::span<const ResumeAction> actions) {
  const std::lock_guard lock(mutex_);
  VMM_TRY(machine());
  if (history_.past) {
    if (control_->paused()) return fail(ErrorCode::kBadState, "The guest is paused from elsewhere");
    return go_forward(actions.front());
  }
  if (crash_) {
    return fail(ErrorCode::kBadState, "The guest cannot go on ({}): detach or kill",
                to_string(crash_->reason));
  }
  VMM_TRY(check_steps(actions));
  asked_.assign(actions.begin(), actions.end());
  return go_on(actions);
}

Result<void> Debugger::go_on(std::span<const ResumeAction> actions) {
  RunControl* const control = VMM_TRY(machine());
  contexts_.clear();
  (void)planted_.renew(control->machine().memory);
  VMM_TRY(guard_pages());
  if (history_.recording) {
    VMM_TRY(record_on());
  } else if (!history_.parts.empty()) {
    forget_history();  // it would not lead here
  }
  VMM_TRY(set_wishes(actions));
  let_cpus_judge(actions);
  std::vector<bool> runs;
  for (const ResumeAction& action : actions) {
    runs.push_back(action.kind != ResumeAction::Kind::kStay);
  }
  holding_ = false;
  return control->release(std::move(runs));
}

void Debugger::remove_all() {
  (void)breakpoints_.take_all();
  if (control_ != nullptr) leave_memory();
}

// The CPUs are at rest.
void Debugger::leave_memory() {
  Machine& machine = control_->machine();
  lifted_ = false;
  planted_.remove_all(machine.memory);
  watched_.set(machine.memory, {});
  (void)machine.ram_slots.guard({});
}

void Debugger::detach() {
  {
    const std::lock_guard lock(mutex_);
    holding_ = false;
    if (control_ != nullptr) {
      (void)control_->hold();
      end_step_over();
      if (history_.past) (void)leave_past(false);
      end_recording();
      forget_history();
      set_checkpoint_interval({});
      asked_.clear();
      wishes_.clear();
      judged_.with([](auto& judged) { judged.reset(); });
      remove_all();
      for (unsigned i = 0; i < control_->vcpus().size(); ++i) {
        CpuDebug& debug = control_->vcpus()[i]->debug();
        (void)on_cpu(i, [&debug](kvm::VcpuFd& cpu) { return debug.set_wish(cpu, {}); });
      }
      reported_.with([](auto& events) { events.clear(); });
      if (!crash_) (void)control_->release({});
    } else {
      remove_all();
    }
  }
  if (options_.on_detach) options_.on_detach();
}

// The guest stays stopped: its end comes from outside.
void Debugger::kill() {
  if (options_.on_kill) options_.on_kill();
}

// ---- registers

template <typename Fn>
auto Debugger::on_cpu(unsigned cpu, Fn fn) const -> std::invoke_result_t<Fn, kvm::VcpuFd&> {
  const auto& vcpus = VMM_TRY(machine())->vcpus();
  if (cpu >= vcpus.size()) return fail(ErrorCode::kOutOfRange, "There is no CPU {}", cpu);
  // Shared with the closure, which outlives this call if the vCPU does not answer in time.
  auto answer = std::make_shared<std::optional<std::invoke_result_t<Fn, kvm::VcpuFd&>>>();
  VMM_TRY(vcpus[cpu]->call([answer, fn](kvm::VcpuFd& fd) { *answer = fn(fd); },
                           RunControl::kVcpuTimeout));
  return std::move(**answer);
}

namespace {

Result<CpuState> read_state(const kvm::VcpuFd& fd) {
  CpuState state;
  state.general = VMM_TRY(fd.registers());
  state.system = VMM_TRY(fd.system_registers());
  state.xsave = VMM_TRY(fd.xsave());
  state.debug = VMM_TRY(fd.debug_registers());
  std::array<kvm::Msr, kNamedMsrs.size()> msrs;
  for (std::size_t i = 0; i < msrs.size(); ++i) msrs[i].index = kNamedMsrs[i].index;
  // KVM stops at the first that it does not know.
  for (std::size_t i = 0; i < msrs.size(); ++i) {
    const std::size_t read = VMM_TRY(fd.read_msrs(std::span(msrs).subspan(i)));
    for (std::size_t end = i + read; i < end; ++i) state.msrs[i] = msrs[i].value;
  }
  return state;
}

// KVM takes some states without a word, and leaves what it cannot do: 32-bit paging on a software
// KVM.
Result<void> check_taken(const x86::SystemRegisters& before, const x86::SystemRegisters& wanted,
                         const x86::SystemRegisters& taken) {
  using Field = std::uint64_t x86::SystemRegisters::*;
  const std::array<std::pair<std::string_view, Field>, 4> fields{
      {{"cr0", &x86::SystemRegisters::cr0},
       {"cr3", &x86::SystemRegisters::cr3},
       {"cr4", &x86::SystemRegisters::cr4},
       {"efer", &x86::SystemRegisters::efer}}};
  for (const auto& [name, field] : fields) {
    const std::uint64_t left = (wanted.*field ^ before.*field) & (wanted.*field ^ taken.*field);
    if (left == 0) continue;
    return fail(ErrorCode::kUnsupported, "this host's KVM leaves bits {:#x} of {} as they are",
                left, name);
  }
  return {};
}

Result<void> write_state(const kvm::VcpuFd& fd, const CpuState& now, const CpuState& wanted) {
  if (wanted.system != now.system) VMM_TRY(fd.set_system_registers(wanted.system));
  if (wanted.general != now.general) VMM_TRY(fd.set_registers(wanted.general));
  if (wanted.xsave != now.xsave) VMM_TRY(fd.set_xsave(wanted.xsave));
  if (wanted.debug != now.debug) VMM_TRY(fd.set_debug_registers(wanted.debug));
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    if (!wanted.msrs[i] || !now.msrs[i]) continue;
    // The time stamp counter never stands still: only a value that somebody chose is written.
    const std::uint64_t value = *wanted.msrs[i];
    if (value == *now.msrs[i]) continue;
    const std::array<kvm::Msr, 1> msrs{{{kNamedMsrs[i].index, value}}};
    VMM_TRY(fd.set_msrs(msrs));
  }
  if (wanted.system == now.system) return {};
  return check_taken(now.system, wanted.system, VMM_TRY(fd.system_registers()));
}

// A CPU that is sent elsewhere is to execute what lies there, be it halted: gdb calls functions
// that way.
Result<void> end_halt(const kvm::VcpuFd& fd, VcpuId id, UserIrqchip* irqchip) {
  if (irqchip != nullptr) {
    irqchip->lapics().with([id](LapicBank& bank) { bank.lapic(id).set_halted(false); });
    return {};
  }
  if (VMM_TRY(fd.mp_state()) == kvm::MpState::kHalted)
    VMM_TRY(fd.set_mp_state(kvm::MpState::kRunnable));
  return {};
}

}  // namespace

Result<void> Debugger::do_on_cpu(unsigned cpu,
                                 const std::function<Result<void>(kvm::VcpuFd&)>& fn) const {
  return on_cpu(cpu, [fn](kvm::VcpuFd& fd) { return fn(fd); });
}

Result<CpuState> Debugger::state_locked(unsigned cpu) const {
  return on_cpu(cpu, [](kvm::VcpuFd& fd) { return read_state(fd); });
}

Result<CpuState> Debugger::state(unsigned cpu) {
  const std::lock_guard lock(mutex_);
  return state_locked(cpu);
}

Result<void> Debugger::set_state(unsigned cpu, const CpuState& state) {
  const std::lock_guard lock(mutex_);
  VMM_TRY(in_present());
  history_.changed = true;
  contexts_.clear();
  UserIrqchip* irqchip = VMM_TRY(machine())->machine().user_irqchip;
  return on_cpu(cpu, [cpu, state, irqchip](kvm::VcpuFd& fd) -> Result<void> {
    const CpuState now = VMM_TRY(read_state(fd));
    if (state.general.rip != now.general.rip) VMM_TRY(end_halt(fd, VcpuId{cpu}, irqchip));
    CpuState wanted = state;
    for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
      // It counts between a debugger's look and its answer: small differences are no wish.
      constexpr std::uint64_t kWhile = std::uint64_t{1} << 40;
      if (kNamedMsrs[i].index == x86::kMsrTsc && wanted.msrs[i] && now.msrs[i] &&
          *now.msrs[i] - *wanted.msrs[i] < kWhile) {
        wanted.msrs[i] = now.msrs[i];
      }
    }
    return write_state(fd, now, wanted);
  });
}

std::string Debugger::activity(unsigned cpu) {
  const std::lock_guard lock(mutex_);
  if (control_ == nullptr) return "starting";
  const Machine& machine = control_->machine();
  if (machine.user_irqchip != nullptr) {
    const auto activity = machine.user_irqchip->lapics().with(
        [cpu](LapicBank& bank) { return bank.lapic(VcpuId{cpu}).state().activity; });
    return activity == Lapic::Activity::kHalted           ? "halted"
           : activity == Lapic::Activity::kWaitForStartUp ? "waiting for start-up"
                                                          : "running";
  }
  const auto state = on_cpu(cpu, [](kvm::VcpuFd& fd) { return fd.mp_state(); });
  if (!state) return "not answering";
  switch (*state) {
    case kvm::MpState::kHalted:
      return "halted";
    case kvm::MpState::kUninitialized:
    case kvm::MpState::kInitReceived:
    case kvm::MpState::kSipiReceived:
      return "waiting for start-up";
    case kvm::MpState::kRunnable:
    case kvm::MpState::kOther:
      break;
  }
  return "running";
}

Architecture Debugger::architecture(unsigned cpu) {
  const auto state = this->state(cpu);
  if (!state || state->system.code_is_64bit()) return Architecture::kX86_64;
  return state->system.cs.default_big ? Architecture::kI386 : Architecture::kI8086;
}

// ---- memory

// Up to `size` bytes from `address` on that lie in one page: where, or nothing that is mapped.
std::optional<Gpa> Debugger::translate(const GuestMemory& memory,
                                       const std::optional<PagingContext>& context,
                                       std::uint64_t address, std::size_t& size) {
  constexpr std::uint64_t kPage = 4096;
  size = std::min<std::uint64_t>(size, kPage - address % kPage);
  if (!context) return Gpa(address);
  const PageWalk walk = walk_pages(memory, *context, Gva(address), AccessKind::kRead);
  if (!walk.mapped()) return std::nullopt;
  return walk.gpa;
}

// How addresses are to be understood; nothing: as physical ones.
Result<std::optional<PagingContext>> Debugger::context(unsigned cpu, Space space) const {
  if (space == Space::kPhysical) return std::optional<PagingContext>();
  if (const auto known = contexts_.find(cpu); known != contexts_.end()) {
    return std::optional(known->second);
  }
  const auto asked = on_cpu(cpu, [](kvm::VcpuFd& fd) -> Result<PagingContext> {
    const x86::Registers general = VMM_TRY(fd.registers());
    const x86::SystemRegisters system = VMM_TRY(fd.system_registers());
    return all_seeing(system, general.rflags);
  });
  return std::optional(contexts_.emplace(cpu, VMM_TRY(asked)).first->second);
}

Result<std::size_t> Debugger::read_memory(unsigned cpu, Space space, std::uint64_t address,
                                          std::span<std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  return read_locked(cpu, space, address, bytes);
}

Result<std::size_t> Debugger::read_locked(unsigned cpu, Space space, std::uint64_t address,
                                          std::span<std::byte> bytes) const {
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  const auto context = VMM_TRY(this->context(cpu, space));
  const std::size_t done = read_pages(memory, context, address, bytes);
  if (done == 0 && !bytes.empty()) {
    return fail(ErrorCode::kOutOfRange, "There is no RAM at {:#x}", address);
  }
  return done;
}

std::size_t Debugger::read_pages(const GuestMemory& memory,
                                 const std::optional<PagingContext>& context, std::uint64_t address,
                                 std::span<std::byte> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    std::size_t size = bytes.size() - done;
    const auto gpa = translate(memory, context, address + done, size);
    const auto piece = bytes.subspan(done, size);
    if (!gpa || !memory.read(*gpa, piece)) break;
    planted_.hide(*gpa, piece);
    done += piece.size();
  }
  return done;
}

Result<void> Debugger::write_memory(unsigned cpu, Space space, std::uint64_t address,
                                    std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  VMM_TRY(in_present());
  history_.changed = true;
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  const auto context = VMM_TRY(this->context(cpu, space));
  std::size_t done = 0;
  while (done < bytes.size()) {
    std::size_t size = bytes.size() - done;
    const auto gpa = translate(memory, context, address + done, size);
    const auto piece = bytes.subspan(done, size);
    if (!gpa) return fail(ErrorCode::kOutOfRange, "Nothing is mapped at {:#x}", address + done);
    VMM_TRY(planted_.write(memory, *gpa, piece));
    done += piece.size();
  }
  return {};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Debugger::ram() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  if (control_ == nullptr) return ranges;
  for (const GuestRegion& region : control_->machine().memory.regions()) {
    ranges.emplace_back(region.range().base().value, region.range().size());
  }
  return ranges;
}

// ---- what else is asked

std::optional<std::uint64_t> Debugger::kernel_offset() {
  return options_.symbols ? kernel_offset_of(*options_.symbols) : std::nullopt;
}

std::optional<std::uint64_t> Debugger::kernel_offset_of(const Symbols& symbols) {
  const std::lock_guard lock(mutex_);
  const auto state = state_locked(0);
  if (!state) return std::nullopt;
  return symbols.kernel_offset(*state, control_->machine().kernel_slide);
}

std::optional<Symbols::Segments> Debugger::kernel_segments() {
  return options_.symbols ? options_.symbols->segments() : std::nullopt;
}

// The guest's memory is its own in a snapshot: what was planted is not in it.
Result<std::shared_ptr<const Snapshot>> Debugger::snapshot_locked() {
  if (!facts_.snapshot) return fail(ErrorCode::kUnsupported, "This machine makes no snapshots");
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  planted_.lift(memory);
  auto made = facts_.snapshot();
  (void)planted_.renew(memory);
  return made;
}

Result<void> Debugger::reset_locked(const std::shared_ptr<const Snapshot>& snapshot) {
  if (!facts_.reset_to) return fail(ErrorCode::kUnsupported, "This machine cannot be set back");
  if (crash_) {
    return fail(ErrorCode::kBadState, "The guest is over ({}): it cannot be set back",
                to_string(crash_->reason));
  }
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  planted_.lift(memory);
  auto done = facts_.reset_to(snapshot);
  contexts_.clear();
  (void)planted_.renew(memory);
  forget_history();
  return done;
}

Debugger::Lifted::Lifted(Debugger& debugger) : lock_(debugger.mutex_), debugger_(debugger) {
  debugger_.contexts_.clear();  // who has the machine may put another state there
  if (debugger_.control_ != nullptr) {
    // Devices are in the present: so is what is saved of the guest.
    if (debugger_.history_.past) {
      (void)debugger_.leave_past(false);
      debugger_.report({.kind = StopKind::kHistoryEnd});
    }
    debugger_.planted_.lift(debugger_.control_->machine().memory);
  }
}

Debugger::Lifted::~Lifted() {
  if (debugger_.control_ != nullptr) {
    (void)debugger_.planted_.renew(debugger_.control_->machine().memory);
  }
}

Result<std::string> Debugger::monitor(unsigned cpu, std::string_view command) {
  const std::lock_guard lock(mutex_);
  contexts_.clear();  // commands may go back to another state
  RunControl* const control = VMM_TRY(machine());
  MonitorView view{.control = *control,
                   .cpu = cpu,
                   .state = [this](unsigned which) { return state_locked(which); },
                   .breakpoints = breakpoints_,
                   .stats = facts_.stats,
                   .symbols = options_.symbols.get(),
                   .crash = crash_ ? &*crash_ : nullptr,
                   .checkpoints = checkpoints_,
                   .snapshot = [this] { return checkpoint_locked(); },
                   .every = [this](auto interval) { set_checkpoint_interval(interval); },
                   .reset_to = [this](const auto& snapshot) { return reset_locked(snapshot); },
                   .record = [this](std::string_view what,
                                    std::size_t ticks) { return record_command(what, ticks); },
                   .may_nmi = [this]() -> Result<void> {
                     VMM_TRY(in_present());
                     if (!history_.recording) return {};
                     return fail(ErrorCode::kBadState, "An NMI cannot be recorded");
                   }};
  return run_monitor_command(view, command);
}

}  // namespace vmm::debug

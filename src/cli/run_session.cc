#include "cli/run_session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "cli/exit_code.h"
#include "cli/progress_bar.h"
#include "cli/report_text.h"
#include "cli/trace_rule.h"

namespace vmm::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;

// A guest that resets at once, over and over, and prints nothing gets nowhere.
constexpr int kMostEmptyResets = 10;
constexpr std::chrono::seconds kQuickReset{1};
// How long an interrupted command waits for a reader of its output.
constexpr milliseconds kShortFlush{500};
// timeout(1) signals its child and then the group that the child is in: that is one wish.
constexpr milliseconds kSameSignal{500};

// Ends that nobody meant.
bool is_crash(StopReason reason) {
  switch (reason) {
    case StopReason::kGuestPanic:
    case StopReason::kHalted:
    case StopReason::kTripleFault:
    case StopReason::kEmulationFailure:
    case StopReason::kEntryFailure:
    case StopReason::kInternalError:
    case StopReason::kWatchdog:
    case StopReason::kMemoryFault:
      return true;
    case StopReason::kPowerOff:
    case StopReason::kReset:
    case StopReason::kDebugExit:
    case StopReason::kDeadline:
    case StopReason::kCancelled:
    case StopReason::kCondition:
      break;
  }
  return false;
}

constexpr std::string_view kMenu =
    "\nvmm: s statistics, p processors, h help, q quit, c or Enter back to the guest\n";
constexpr std::string_view kHelp =
    "\nvmm: in this menu:   s statistics   p processors   q quit   c, Enter, Esc back to the "
    "guest\n"
    "     at any time:    escape key, then x quit, c menu, a the escape key itself\n";

}  // namespace

RunSession::RunSession(RunRequest request, Terminal& terminal)
    : request_(std::move(request)), terminal_(terminal), escape_(request_.escape_key) {}

void RunSession::note(const std::string& line) { terminal_.say(fmt::format("vmm: {}\n", line)); }

// What the host's side of a serial port or a console needs, which is more on a terminal.
ConsoleOptions RunSession::options_for(const ConsoleSpec& where) {
  ConsoleOptions options{.started = false};
  const bool on_stdio = std::holds_alternative<StreamConsole>(where);
  const bool typed = on_stdio && terminal_.is_terminal();
  if (on_stdio && request_.escape.value_or(typed)) {
    options.input_filter = [this](std::span<const std::byte> bytes) { return filter_input(bytes); };
  }
  // Keys must be seen even when the guest looks at none; a pipe can wait.
  options.always_read = typed;
  if (typed) options.input_buffer = MiB(1);
  return options;
}

bool RunSession::uses_stdio() const {
  return std::holds_alternative<StreamConsole>(request_.serial) ||
         std::any_of(request_.consoles.begin(), request_.consoles.end(),
                     [](const ConsolePortSpec& port) { return port.on_stdio(); });
}

Result<void> RunSession::open_consoles() {
  console_ =
      VMM_TRY(with_context(ConsoleBackend::create(request_.serial, options_for(request_.serial)),
                           "Open the serial port's host side (--serial)"));
  VMM_TRY(ports_.open(
      request_.consoles, [this](const ConsoleSpec& where) { return options_for(where); },
      [this](const std::string& line) { note(line); }));
  if (const std::string place = console_->place(); !place.empty()) {
    note(fmt::format("serial port on {}", place));
  }
  if (request_.debug_console) {
    debug_console_ = VMM_TRY(
        with_context(ConsoleBackend::create(*request_.debug_console,
                                            {.thread_name = "debug-console", .started = false}),
                     "Open the debug console (--debug-console)"));
  }
  return {};
}

// Their threads are not what a guest's first instruction should wait for.
Result<void> RunSession::start_consoles() {
  for (ConsoleBackend* const console : consoles()) VMM_TRY(console->start());
  return {};
}

std::vector<ConsoleBackend*> RunSession::consoles() const {
  std::vector<ConsoleBackend*> all = ports_.backends();
  all.push_back(console_.get());
  if (debug_console_) all.push_back(debug_console_.get());
  return all;
}

std::string RunSession::statistics(const Vm& vm) const {
  return statistics_text(vm.stats(), console_->stats()) + ports_.statistics_text();
}

Log RunSession::make_log() {
  return Log([this](LogLevel, std::string_view category,
                    std::string_view line) { note(fmt::format("{}: {}", category, line)); },
             request_.verbose ? LogLevel::kInfo : LogLevel::kWarning);
}

Result<void> RunSession::load_flat_image() {
  if (!request_.flat_file) return {};
  const auto failed = [this](const char* what) {
    return tl::unexpected<Error>(
        Error::from_errno(errno, ErrorCode::kBadKernel,
                          fmt::format("{} the flat image {}", what, *request_.flat_file)));
  };
  const UniqueFd file(::open(request_.flat_file->c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return failed("Open");
  // No more than could lie in guest memory: a device or endless file is refused, not swallowed.
  const std::uint64_t most = request_.config.memory.size;
  FlatBoot& flat = std::get<FlatBoot>(request_.config.boot);
  std::array<std::byte, KiB(64)> piece;  // not zeroed: a small image touches one page of it
  for (;;) {
    const ssize_t n = ::read(file.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("Read");
    if (n == 0) break;
    flat.image.insert(flat.image.end(), piece.begin(), piece.begin() + n);
    if (flat.image.size() > most) {
      return fail(ErrorCode::kBadKernel,
                  "The flat image {} is larger than the guest's memory of {}", flat.name,
                  format_size(most));
    }
  }
  if (flat.image.empty())
    return fail(ErrorCode::kBadKernel, "The flat image {} is empty", flat.name);
  return {};
}

VmConfig RunSession::make_config() {
  VmConfig config;
  {
    const std::lock_guard guard(mutex_);  // sizes may be changed meanwhile
    config = request_.config;
  }
  // It is for one machine, and a reset makes another. Its thread ends when the guest runs.
  early_kvm_ = std::move(request_.config.early_kvm);
  config.serial.output = console_.get();
  ports_.fill(config);
  config.debug_console = debug_console_.get();
  config.log = make_log();
  if (config.memory.preallocate && ::isatty(STDERR_FILENO) == 1 && !request_.quiet) {
    config.memory.on_progress = [bar = std::make_shared<ProgressBar>("guest memory")](
                                    std::uint64_t done, std::uint64_t all) {
      bar->show(done, all);
    };
  }
  if (request_.trace) {
    config.trace = [this](const std::string& line) {
      if (wants_trace(line, request_.trace_rules)) note(line);
    };
  }
  if (request_.trace_syscalls) {
    config.trace_syscalls = [this](const std::string& line) { note(line); };
  }
  if (request_.trace_interrupts || request_.trace_requests) {
    config.on_event = [this](const DeviceEvent& event) {
      const bool wanted =
          event.is_interrupt() ? request_.trace_interrupts : request_.trace_requests;
      if (wanted) note(device_event_text(event));
    };
  }
  return config;
}

void RunSession::connect(Vm& vm) {
  {
    const std::lock_guard guard(mutex_);
    vm_ = &vm;
    for (const std::string& net : links_down_) (void)vm.set_link(net, false);
    if (quit_ || pause_wanted_ || snapshot_wish_)
      vm.cancel();  // asked for while the machine was being built
  }
  console_->on_writable([&vm] { vm.serial_output_ready(); });
  console_->connect_input(
      {[&vm](std::span<const std::byte> bytes) { return vm.push_serial_input(bytes); },
       &vm.serial_input_space()});
  ports_.connect(vm, terminal_.size());
}

void RunSession::disconnect() {
  console_->disconnect_input();
  console_->on_writable({});
  ports_.disconnect();
  const std::lock_guard guard(mutex_);
  vm_ = nullptr;
  changed_.notify_all();  // who waits for something of this machine
}

// Whether nothing can take long before the guest runs: signals can wait so long for their thread,
// which costs a tenth of such a start.
bool RunSession::starts_at_once() const {
  return !std::holds_alternative<KernelBoot>(request_.config.boot) && !request_.snapshot_file &&
         !request_.config.memory.preallocate && request_.disks.empty() &&
         request_.networks.empty() && request_.shares.empty();
}

Result<SessionEnd> RunSession::run(SignalWatch& signals) {
  signals_ = &signals;
  if (!starts_at_once()) VMM_TRY(signals_->start());
  VMM_TRY(load_flat_image());
  VMM_TRY(open_snapshot());
  VMM_TRY(open_consoles());
  VMM_TRY(open_disks());
  VMM_TRY(open_pmem());
  VMM_TRY(open_networks());
  VMM_TRY(open_vsock());
  VMM_TRY(open_gdb());
  VMM_TRY(open_shares());
  VMM_TRY(open_control());
  if (request_.timeout) {
    end_time_ =
        steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(*request_.timeout);
  }
  for (;;) {
    const std::unique_ptr<Vm> vm = VMM_TRY(Vm::create(make_config()));
    if (request_.verbose) {
      for (const std::string& decision : vm->decisions()) note(decision);
    }
    if (uses_stdio()) VMM_TRY(terminal_.make_raw());
    if (gdb_) vm->attach_debugger(gdb_->debugger());
    connect(*vm);
    const auto start = steady_clock::now();
    const Result<StopInfo> stop = run_machine(*vm);
    disconnect();
    if (!stop) return tl::unexpected<Error>(stop.error());
    VMM_TRY(record_pages(*vm));
    note_watchdog(*vm);
    const bool reboot = stop->reason == StopReason::kReset && !request_.no_reboot;
    const bool loop = reboot && is_reset_loop(steady_clock::now() - start);
    if (reboot && !loop && !quit_) {
      if (request_.verbose) note("guest reset, starting it again");
      const std::lock_guard guard(mutex_);
      ++resets_;
      continue;
    }
    drain_output();
    if (request_.verbose) {
      terminal_.restore();
      terminal_.say(statistics(*vm));
    }
    if (loop) {
      return SessionEnd{.exit_code = kExitResetLoop,
                        .reason = "reset loop",
                        .value = {},
                        .line = fmt::format("guest reset {} times in a row within a second each, "
                                            "without printing anything",
                                            empty_resets_),
                        .report = {}};
    }
    if (gdb_) gdb_->guest_ended(static_cast<unsigned>(exit_code(*stop)));
    const std::lock_guard guard(mutex_);
    // A reset that would have been followed by another start is no end of the guest's own.
    const StopInfo end = reboot ? StopInfo{.reason = StopReason::kCancelled} : *stop;
    SessionEnd told{.exit_code = exit_code(end),
                    .reason = std::string(to_string(end.reason)),
                    .value = {},
                    .line = end_text(end, quit_why_),
                    .report = end.report};
    if (end.reason == StopReason::kDebugExit) told.value = end.value;
    return told;
  }
}

Result<void> RunSession::record_pages(const Vm& vm) const {
  const std::string& file = request_.restore_memory.record;
  if (file.empty()) return {};
  return VMM_TRY(vm.used_pages()).write(file);
}

Result<StopInfo> RunSession::run_machine(Vm& vm) {
  for (;;) {
    Result<void> threads;
    RunOptions options{.on_started = [&] {
      std::this_thread::yield();  // a guest that waits for this CPU goes first
      threads = signals_->start();
      if (threads) threads = start_consoles();
      if (!threads) vm.cancel();
      early_kvm_.reset();
    }};
    if (end_time_) {
      options.deadline = std::max<nanoseconds>(*end_time_ - steady_clock::now(), nanoseconds(0));
    }
    StopInfo stop = VMM_TRY(vm.run(options));
    VMM_TRY(std::move(threads));
    if (is_crash(stop.reason)) {
      if (request_.on_crash.core) write_crash_core(vm);
      if (request_.on_crash.stays) keep_crashed(vm, stop);
    }
    // A pause that somebody asked for is not an end, unless it was to quit.
    if (stop.reason != StopReason::kCancelled || !serve_requests(vm)) return stop;
  }
}

Result<void> RunSession::open_gdb() {
  if (!request_.gdb && !request_.control && request_.symbols.empty()) return {};
  const auto let_go = [this] {
    const std::lock_guard guard(mutex_);
    keeps_crashed_ = false;
    changed_.notify_all();
  };
  gdb_ = VMM_TRY(debug::Server::create({.wait = request_.gdb_wait,
                                        .symbols = request_.symbols,
                                        .time_goes_on = request_.gdb_time_goes_on,
                                        .on_kill = [this] { request_quit("by the debugger"); },
                                        .on_detach = let_go,
                                        .log = make_log()}));
  if (!request_.gdb) return {};
  const std::string place =
      VMM_TRY(with_context(gdb_->listen(*request_.gdb), "Let a debugger connect (--gdb)"));
  note(fmt::format("gdb can connect to {}{}", place,
                   request_.gdb_wait ? "; the guest waits for it" : ""));
  return {};
}

void RunSession::keep_crashed(Vm& vm, const StopInfo& stop) {
  std::unique_lock lock(mutex_);
  keeps_crashed_ = true;
  lock.unlock();
  gdb_->report_crash(stop);
  note(fmt::format("{}; it stays for a debugger", end_text(stop, {})));
  lock.lock();
  paused_ = true;  // it stands, whoever asks for that
  const auto over = [this] { return !keeps_crashed_ || quit_ || has_wishes(); };
  for (bool in_time = true; in_time && keeps_crashed_ && !quit_;) {
    serve_wishes(vm, lock);
    if (end_time_) {
      in_time = changed_.wait_until(lock, *end_time_, over);
    } else {
      changed_.wait(lock, over);
    }
  }
  paused_ = keeps_crashed_ = false;
}

bool RunSession::has_wishes() const { return show_processors_ || suspend_ || snapshot_wish_; }

void RunSession::serve_wishes(Vm& vm, std::unique_lock<std::mutex>& lock) {
  if (std::exchange(show_processors_, false)) {
    lock.unlock();
    show_processors(vm);
    lock.lock();
  }
  if (std::exchange(suspend_, false)) {
    lock.unlock();
    stop_process();
    lock.lock();
  }
  if (snapshot_wish_) serve_snapshot(vm, lock);
}

bool RunSession::serve_requests(Vm& vm) {
  std::unique_lock lock(mutex_);
  for (;;) {
    serve_wishes(vm, lock);
    if (!pause_wanted_ || quit_) return !quit_;
    stay_paused(lock);
    if (!has_wishes()) return !quit_;
  }
}

bool RunSession::is_reset_loop(nanoseconds ran) {
  std::uint64_t output = 0;
  for (const ConsoleBackend* const console : consoles()) output += console->stats().output_bytes;
  const bool empty = ran < kQuickReset && output == output_seen_;
  output_seen_ = output;
  empty_resets_ = empty ? empty_resets_ + 1 : 0;
  return empty_resets_ > kMostEmptyResets;
}

void RunSession::drain_output() {
  // As long as the reader wants, as any program that writes to a pipe; but the user may end that.
  for (ConsoleBackend* const console : consoles()) {
    while (!console->flush(quit_ ? kShortFlush : milliseconds(100)) && !quit_) {
    }
  }
  for (const ConsoleBackend* const console : consoles()) {
    const ConsoleStats stats = console->stats();
    if (stats.output_dropped == 0 || console == debug_console_.get()) continue;
    terminal_.restore();
    note(fmt::format("{} bytes of the guest's output were lost{}", stats.output_dropped,
                     stats.output_error.empty() ? "" : ": " + stats.output_error));
  }
}

void RunSession::tell_size() {
  const std::lock_guard guard(mutex_);
  if (vm_ != nullptr) ports_.resize(*vm_, terminal_.size());
}

void RunSession::note_watchdog(const Vm& vm) {
  const auto watchdog = vm.status().watchdog;
  if (!watchdog) return;
  const bool expired = watchdog->expirations != 0;
  if (expired && !request_.quiet) note("the guest did not feed its watchdog");
  const std::lock_guard guard(mutex_);
  request_.config.watchdog->expired_before = expired;
}

std::vector<std::byte> RunSession::filter_input(std::span<const std::byte> typed) {
  EscapeParser::Output output = escape_.feed(typed);
  for (const EscapeCommand command : output.commands) on_command(command);
  return std::move(output.to_guest);
}

void RunSession::request_quit(std::string why) {
  const std::lock_guard guard(mutex_);
  ask_to_quit(std::move(why));
}

void RunSession::ask_to_quit(std::string why) {
  if (quit_why_.empty()) quit_why_ = std::move(why);
  quit_ = true;
  if (vm_ != nullptr) vm_->cancel();
  changed_.notify_all();
}

void RunSession::on_command(EscapeCommand command) {
  switch (command) {
    case EscapeCommand::kQuit:
      request_quit("from the keyboard");
      break;
    case EscapeCommand::kMenu:
      terminal_.say(kMenu);
      break;
    case EscapeCommand::kHelp:
      terminal_.say(kHelp);
      break;
    case EscapeCommand::kStatistics:
      show_statistics();
      break;
    case EscapeCommand::kProcessors: {
      // Registers can only be read at rest: the main thread does it.
      const std::lock_guard guard(mutex_);
      show_processors_ = true;
      if (vm_ != nullptr) vm_->cancel();
      changed_.notify_all();
      break;
    }
    case EscapeCommand::kContinue:
      break;
  }
}

void RunSession::show_statistics() {
  std::string text = "\n";
  {
    const std::lock_guard guard(mutex_);
    if (vm_ != nullptr) text += statistics(*vm_);
  }
  terminal_.say(text);
}

void RunSession::show_processors(Vm& vm) {
  std::string text = "\n";
  for (std::uint32_t id = 0; id < request_.config.cpus.count; ++id) {
    const auto registers = vm.registers(static_cast<VcpuId>(id));
    const auto system = vm.system_registers(static_cast<VcpuId>(id));
    text += registers && system ? processor_text(id, *registers, *system)
                                : fmt::format("vmm: CPU {}: no answer\n", id);
  }
  terminal_.say(text);
}

// The shell gets its terminal back. raise(3) stops this thread before it returns, kill(2) might
// not.
void RunSession::stop_process() {
  terminal_.suspend([] { ::raise(SIGSTOP); });
}

void RunSession::on_signal(int signal) {
  switch (signal) {
    case SIGTSTP: {
      // The guest's time is to stand still with it, so the main thread pauses the guest first.
      const std::lock_guard guard(mutex_);
      if (vm_ != nullptr) {
        suspend_ = true;
        vm_->cancel();
        changed_.notify_all();
      } else {
        stop_process();
      }
      break;
    }
    case SIGCONT:
      terminal_.resume();
      tell_size();
      break;
    case SIGWINCH:
      tell_size();
      break;
    default:
      if (quit_ && std::chrono::steady_clock::now() - quit_signal_at_ < kSameSignal) {
        break;
      }
      if (quit_) {
        // Asked twice: something hangs, or the user is in a hurry.
        terminal_.restore();
        note(fmt::format("{} again: giving up at once", sigabbrev_np(signal)));
        ::_exit(kExitInterrupted);
      }
      quit_signal_at_ = std::chrono::steady_clock::now();
      request_quit(fmt::format("SIG{}", sigabbrev_np(signal)));
      break;
  }
}

}  // namespace vmm::cli

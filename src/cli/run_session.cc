#include "cli/run_session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "cli/exit_code.h"
#include "cli/net_option.h"
#include "cli/progress_bar.h"
#include "cli/report_text.h"
#include "vmm/vsock/open_vsock.h"

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

Result<void> RunSession::open_consoles() {
  ConsoleOptions options{.started = false};
  const bool on_stdio = std::holds_alternative<StreamConsole>(request_.serial);
  const bool typed = on_stdio && terminal_.is_terminal();
  if (on_stdio && request_.escape.value_or(typed)) {
    options.input_filter = [this](std::span<const std::byte> bytes) { return filter_input(bytes); };
  }
  // Keys must be seen even when the guest looks at none; a pipe can wait.
  options.always_read = typed;
  if (typed) options.input_buffer = MiB(1);
  console_ = VMM_TRY(with_context(ConsoleBackend::create(request_.serial, std::move(options)),
                                  "Open the serial port's host side (--serial)"));
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
void RunSession::start_consoles() {
  console_->start();
  if (debug_console_) debug_console_->start();
}

// What tells this machine from others, each time it is started: its UUID, or host and boot image.
std::string RunSession::identity() const {
  const VmConfig& config = request_.config;
  if (config.uuid != decltype(config.uuid){}) {
    return fmt::format("{:02x}", fmt::join(config.uuid, ""));
  }
  std::string host;
  std::getline(std::ifstream("/etc/machine-id"), host);
  const auto* const kernel = std::get_if<KernelBoot>(&config.boot);
  return host + "\n" + (kernel != nullptr ? kernel->kernel.string() : std::string());
}

Result<void> RunSession::open_networks() {
  const std::string machine = request_.networks.empty() ? std::string() : identity();
  for (std::size_t i = 0; i < request_.networks.size(); ++i) {
    const NetworkSpec& spec = request_.networks[i];
    const MacAddress mac = spec.mac.value_or(default_mac(machine, spec, i));
    auto backend = VMM_TRY(
        with_context(open_network(spec), fmt::format("Open network interface {} (--net)", i)));
    if (request_.verbose) note(fmt::format("network interface {} is {}", i, mac.text()));
    request_.config.virtio.emplace_back(VirtioNetConfig{mac, std::move(backend)});
  }
  return {};
}

Result<void> RunSession::open_vsock() {
  if (!request_.vsock) return {};
  auto backend = VMM_TRY(
      with_context(vmm::open_vsock(request_.vsock->path), "Open the guest's socket (--vsock)"));
  request_.config.virtio.emplace_back(VirtioVsockConfig{request_.vsock->cid, std::move(backend)});
  return {};
}

// Once for all machines: a reset changes nothing about the disks, and those that will be thrown
// away keep what they hold.
Result<void> RunSession::open_disks() {
  const char* const scratch = std::getenv("TMPDIR");
  std::vector<DiskImage> images;
  for (const DiskSpec& disk : request_.disks) {
    images.push_back(disk.image);
    if (scratch != nullptr && *scratch != '\0') images.back().scratch_directory = scratch;
  }
  const auto opened =
      VMM_TRY(with_context(vmm::open_disks(images, make_log()), "Open the disks (--disk)"));
  for (std::size_t i = 0; i < opened.size(); ++i) {
    const DiskSpec& disk = request_.disks[i];
    request_.config.virtio.emplace_back(
        VirtioDiskConfig{.backend = opened[i], .serial = disk.serial, .queues = disk.queues});
  }
  return {};
}

// Once for all machines, as with disks: writes that are to be discarded stay across resets.
Result<void> RunSession::open_pmem() {
  for (const PmemSpec& spec : request_.pmem) {
    auto file = VMM_TRY(
        with_context(vmm::open_pmem(spec, make_log()), "Open a persistent memory (--pmem)"));
    request_.config.virtio.emplace_back(VirtioPmemConfig{.file = std::move(file)});
  }
  return {};
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
  request_.config.early_kvm.reset();  // it is for one machine, and a reset makes another
  config.serial.output = console_.get();
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
      if (wants_trace(line, request_.trace_kinds)) note(line);
    };
  }
  return config;
}

void RunSession::connect(Vm& vm) {
  {
    const std::lock_guard guard(mutex_);
    vm_ = &vm;
    for (const std::string& net : links_down_) (void)vm.set_link(net, false);
    if (quit_ || pause_wanted_) vm.cancel();  // asked for while the machine was being built
  }
  console_->on_writable([&vm] { vm.serial_output_ready(); });
  console_->connect_input(
      {[&vm](std::span<const std::byte> bytes) { return vm.push_serial_input(bytes); },
       &vm.serial_input_space()});
}

void RunSession::disconnect() {
  console_->disconnect_input();
  console_->on_writable({});
  const std::lock_guard guard(mutex_);
  vm_ = nullptr;
}

Result<SessionEnd> RunSession::run() {
  VMM_TRY(load_flat_image());
  VMM_TRY(open_consoles());
  VMM_TRY(open_disks());
  VMM_TRY(open_pmem());
  VMM_TRY(open_networks());
  VMM_TRY(open_vsock());
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
    if (std::holds_alternative<StreamConsole>(request_.serial)) VMM_TRY(terminal_.make_raw());
    connect(*vm);
    const auto start = steady_clock::now();
    const Result<StopInfo> stop = run_machine(*vm);
    disconnect();
    if (!stop) return tl::unexpected<Error>(stop.error());
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
      terminal_.say(statistics_text(vm->stats(), console_->stats()));
    }
    if (loop) {
      return SessionEnd{kExitResetLoop,
                        fmt::format("guest reset {} times in a row within a second each, without "
                                    "printing anything",
                                    empty_resets_),
                        {}};
    }
    const std::lock_guard guard(mutex_);
    // A reset that would have been followed by another start is no end of the guest's own.
    const StopInfo end = reboot ? StopInfo{.reason = StopReason::kCancelled} : *stop;
    return SessionEnd{exit_code(end), end_text(end, quit_why_), end.report};
  }
}

Result<StopInfo> RunSession::run_machine(Vm& vm) {
  for (;;) {
    RunOptions options{.on_started = [this] { start_consoles(); }};
    if (end_time_) {
      options.deadline = std::max<nanoseconds>(*end_time_ - steady_clock::now(), nanoseconds(0));
    }
    StopInfo stop = VMM_TRY(vm.run(options));
    // A pause that somebody asked for is not an end, unless it was to quit.
    if (stop.reason != StopReason::kCancelled || !serve_requests(vm)) return stop;
  }
}

bool RunSession::serve_requests(Vm& vm) {
  std::unique_lock lock(mutex_);
  for (;;) {
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
    if (!pause_wanted_ || quit_) return !quit_;
    stay_paused(lock);
    if (!show_processors_ && !suspend_) return !quit_;
  }
}

bool RunSession::is_reset_loop(nanoseconds ran) {
  const std::uint64_t output = console_->stats().output_bytes;
  const bool empty = ran < kQuickReset && output == output_seen_;
  output_seen_ = output;
  empty_resets_ = empty ? empty_resets_ + 1 : 0;
  return empty_resets_ > kMostEmptyResets;
}

void RunSession::drain_output() {
  // As long as the reader wants, as any program that writes to a pipe; but the user may end that.
  for (ConsoleBackend* const console : {console_.get(), debug_console_.get()}) {
    if (console == nullptr) continue;
    while (!console->flush(quit_ ? kShortFlush : milliseconds(100)) && !quit_) {
    }
  }
  const ConsoleStats stats = console_->stats();
  if (stats.output_dropped != 0) {
    terminal_.restore();
    note(fmt::format("{} bytes of the guest's output were lost{}", stats.output_dropped,
                     stats.output_error.empty() ? "" : ": " + stats.output_error));
  }
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
    if (vm_ != nullptr) text += statistics_text(vm_->stats(), console_->stats());
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

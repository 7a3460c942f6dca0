// One `vmm run`: the machines that follow each other across resets, what the user and signals ask
// for meanwhile, and the end.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/console_ports.h"
#include "cli/control_protocol.h"
#include "cli/escape_parser.h"
#include "cli/run_options.h"
#include "cli/signal_watch.h"
#include "cli/terminal.h"
#include "vmm/console/console_backend.h"
#include "vmm/control/line_server.h"
#include "vmm/debug/server.h"
#include "vmm/vm.h"

namespace vmm::cli {

// Why a session ended: the exit status, and what to tell.
struct SessionEnd {
  int exit_code = 0;
  std::string reason;                  // in a word, as the library's StopReason has it
  std::optional<std::uint32_t> value;  // what a guest wrote to the debug-exit port
  std::string line;                    // "guest powered off"
  std::string report;                  // many lines, or empty
};

// Made and run by the main thread; on_signal() and on_command() come from others.
class RunSession final : private ControlTarget {
 public:
  RunSession(RunRequest request, Terminal& terminal);

  // Runs to the end; starts the watch, which calls on_signal(). Errors: of the host, the
  // configuration, or a boot file.
  Result<SessionEnd> run(SignalWatch& signals);

  void on_signal(int signal);
  void on_command(EscapeCommand command);
  // What of the typed bytes the guest gets; commands in them are carried out.
  std::vector<std::byte> filter_input(std::span<const std::byte> typed);

 private:
  bool starts_at_once() const;
  Result<void> open_consoles();
  ConsoleOptions options_for(const ConsoleSpec& where);
  bool uses_stdio() const;
  Result<void> start_consoles();
  std::vector<ConsoleBackend*> consoles() const;
  std::string statistics(const Vm& vm) const;
  Result<void> open_networks();
  Result<void> open_vsock();
  Result<void> open_shares();
  std::string identity() const;
  Result<void> open_pmem();
  Result<void> open_disks();
  DiskImage image_of(const DiskSpec& disk) const;
  // The I/O thread of a device that asks for this one, or for none.
  std::vector<std::uint32_t> io_threads_for(std::vector<std::uint32_t> chosen);
  // A snapshot or core file that a client waits for: the main thread, which owns the machine,
  // writes it.
  struct SnapshotWish {
    std::string file;
    std::string base = {};  // of an increment
    bool core = false;
    std::optional<Result<void>> outcome = {};
    std::unique_ptr<FrozenCore> frozen = {};  // still to be written, while the guest goes on
  };
  Result<void> open_snapshot();
  // What the host has for each device of that kind that the snapshot's machine has.
  template <typename Config>
  std::vector<Config*> devices_of_snapshot();
  Result<void> give_network(std::size_t number, const NetworkSpec& spec);
  Result<void> give_disk(std::size_t number, const DiskSpec& disk,
                         std::span<const std::shared_ptr<BlockBackend>> opened);
  Log make_log();
  Result<void> load_flat_image();
  VmConfig make_config();
  // Runs one machine until it is over.
  Result<StopInfo> run_machine(Vm& vm);
  // Writes which pages of its snapshot the guest has used (--restore-memory).
  Result<void> record_pages(const Vm& vm) const;
  Result<void> open_gdb();
  // A guest that crashed stays until a debugger lets go of it, or somebody wants the end.
  void keep_crashed(Vm& vm, const StopInfo& stop);
  // What somebody waits for of a guest at rest. mutex_ held, not while it is carried out.
  bool has_wishes() const;
  void serve_wishes(Vm& vm, std::unique_lock<std::mutex>& lock);
  // What asked for a pause is served; false when that was to quit.
  bool serve_requests(Vm& vm);
  bool is_reset_loop(std::chrono::nanoseconds ran);
  void connect(Vm& vm);
  void disconnect();
  void drain_output();
  void tell_size();  // of the terminal
  // Whether a watchdog was not fed: then the next machine's guest can ask for that.
  void note_watchdog(const Vm& vm);
  void note(const std::string& line);
  void show_statistics();
  void show_processors(Vm& vm);
  void request_quit(std::string why);
  void stop_process();
  void ask_to_quit(std::string why);  // mutex_ held

  // session_control.cc: what the control socket asks for.
  Result<void> open_control();
  // Stands still as long as that is wanted. mutex_ held.
  void stay_paused(std::unique_lock<std::mutex>& lock);
  ControlStatus control_status() override;
  Result<void> control_pause() override;
  Result<void> control_resume() override;
  Result<void> control_quit() override;
  Result<void> control_power_button() override;
  Result<void> control_balloon(std::uint64_t bytes) override;
  Result<void> control_memory(std::uint64_t bytes) override;
  Result<std::uint64_t> control_resize(const std::string& disk,
                                       std::optional<std::uint64_t> bytes) override;
  Result<void> control_limit(const std::string& disk, const BlockRates& rates) override;
  Result<void> control_snapshot(const std::string& file, const std::string& base) override;
  // Writes the snapshot that is wanted. mutex_ held, not while it is written.
  void serve_snapshot(Vm& vm, std::unique_lock<std::mutex>& lock);
  Result<void> control_core(const std::string& file) override;
  // Writes the guest to a file of that kind when it is at rest, and waits for that.
  Result<void> write_file(SnapshotWish wanted);
  // session_debug.cc
  Result<ControlExits> control_exits(std::uint32_t cpu, std::size_t most) override;
  Result<ControlEvents> control_events(std::size_t most) override;
  Result<std::vector<ControlStack>> control_sample() override;
  void write_crash_core(Vm& vm);
  Result<void> control_link(const std::string& net, bool up) override;
  Result<std::string> control_gdb(const std::string& address) override;
  Result<std::string> control_add_disk(const std::string& options) override;
  Result<std::string> control_add_net(const std::string& options) override;
  Result<void> control_remove_disk(const std::string& disk, bool force) override;
  Result<void> control_remove_net(const std::string& net, bool force) override;
  std::string free_name(std::string_view kind) const;  // mutex_ held
  void forget(const std::string& device);              // mutex_ held
  template <typename Fn>
  Result<void> remove_device(const std::string& device, Fn&& ask);
  Result<Vm*> machine() const;  // mutex_ held

  RunRequest request_;
  Terminal& terminal_;
  SignalWatch* signals_ = nullptr;  // while run() runs
  std::shared_ptr<EarlyKvm> early_kvm_;
  EscapeParser escape_;
  std::unique_ptr<ConsoleBackend> console_;
  ConsolePorts ports_;
  std::unique_ptr<ConsoleBackend> debug_console_;
  std::optional<std::chrono::steady_clock::time_point> end_time_;
  int empty_resets_ = 0;
  std::uint32_t next_io_thread_ = 0;  // whose turn it is
  std::uint64_t output_seen_ = 0;

  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  Vm* vm_ = nullptr;  // the machine that is running
  bool pause_wanted_ = false;
  bool paused_ = false;
  std::uint64_t resets_ = 0;
  std::set<std::string> links_down_;  // stays so when the guest resets
  bool show_processors_ = false;
  std::shared_ptr<SnapshotWish> snapshot_wish_;
  bool suspend_ = false;  // stop the process when the guest is at rest
  std::string quit_why_;  // empty while nobody has asked
  std::atomic<bool> quit_{false};
  // When the first signal asked; only the thread of signals looks at it.
  std::chrono::steady_clock::time_point quit_signal_at_{};

  bool keeps_crashed_ = false;
  std::unique_ptr<debug::Server> gdb_;   // calls into the rest, as the next
  std::unique_ptr<LineServer> control_;  // last: it calls into the rest
};

}  // namespace vmm::cli

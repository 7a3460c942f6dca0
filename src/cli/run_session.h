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
#include <string>

#include "base/result.h"
#include "cli/control_protocol.h"
#include "cli/escape_parser.h"
#include "cli/run_options.h"
#include "cli/terminal.h"
#include "vmm/console/console_backend.h"
#include "vmm/control/line_server.h"
#include "vmm/vm.h"

namespace vmm::cli {

// Why a session ended: the exit status, and what to tell.
struct SessionEnd {
  int exit_code = 0;
  std::string line;    // "guest powered off"
  std::string report;  // many lines, or empty
};

// Made and run by the main thread; on_signal() and on_command() come from others.
class RunSession final : private ControlTarget {
 public:
  RunSession(RunRequest request, Terminal& terminal);

  // Runs to the end. Errors: of the host, the configuration, or a boot file.
  Result<SessionEnd> run();

  void on_signal(int signal);
  void on_command(EscapeCommand command);
  // What of the typed bytes the guest gets; commands in them are carried out.
  std::vector<std::byte> filter_input(std::span<const std::byte> typed);

 private:
  Result<void> open_consoles();
  void start_consoles();
  Result<void> open_networks();
  Result<void> open_vsock();
  std::string identity() const;
  Result<void> open_pmem();
  Result<void> open_disks();
  Log make_log();
  Result<void> load_flat_image();
  VmConfig make_config();
  // Runs one machine until it is over.
  Result<StopInfo> run_machine(Vm& vm);
  // What asked for a pause is served; false when that was to quit.
  bool serve_requests(Vm& vm);
  bool is_reset_loop(std::chrono::nanoseconds ran);
  void connect(Vm& vm);
  void disconnect();
  void drain_output();
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
  Result<void> control_balloon(std::uint64_t bytes) override;
  Result<void> control_memory(std::uint64_t bytes) override;
  Result<std::uint64_t> control_resize(const std::string& disk,
                                       std::optional<std::uint64_t> bytes) override;
  Result<void> control_link(const std::string& net, bool up) override;
  Result<Vm*> machine() const;  // mutex_ held

  RunRequest request_;
  Terminal& terminal_;
  EscapeParser escape_;
  std::unique_ptr<ConsoleBackend> console_;
  std::unique_ptr<ConsoleBackend> debug_console_;
  std::optional<std::chrono::steady_clock::time_point> end_time_;
  int empty_resets_ = 0;
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
  bool suspend_ = false;  // stop the process when the guest is at rest
  std::string quit_why_;  // empty while nobody has asked
  std::atomic<bool> quit_{false};
  // When the first signal asked; only the thread of signals looks at it.
  std::chrono::steady_clock::time_point quit_signal_at_{};

  std::unique_ptr<LineServer> control_;  // last: it calls into the rest
};

}  // namespace vmm::cli

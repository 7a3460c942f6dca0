// The options of `vmm run`: one table for the command line, the configuration file and the
// completion, and the way from their texts to a configuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/console_option.h"
#include "cli/crash_option.h"
#include "cli/disk_option.h"
#include "cli/restore_memory_option.h"
#include "cli/share_option.h"
#include "cli/trace_rule.h"
#include "cli/vsock_option.h"
#include "vmm/config.h"
#include "vmm/console/console_backend.h"
#include "vmm/debug/server.h"
#include "vmm/net/network.h"
#include "vmm/open_pmem.h"

namespace vmm::cli {

enum class OptionKind : std::uint8_t {
  kFlag,           // --kaslr; in a file true or false
  kValue,          // --mem 512M; the last one wins
  kOptionalValue,  // --trace or --trace=pio
  kList            // --quirk a=on --quirk b=off
};

struct OptionSpec {
  std::string_view name;  // without dashes; the key in a configuration file
  OptionKind kind = OptionKind::kValue;
  std::string_view metavar;  // what the value is called in the help
  std::string_view help;
  std::string_view group;
  char short_name = 0;
};

// Every option of `vmm run` that a configuration file may hold, too.
std::span<const OptionSpec> run_option_table() noexcept;

// The texts of one option, and where they are from, for messages: "--mem", or "vm.json: mem".
struct RawOption {
  std::vector<std::string> values;
  std::string origin;
};
using RawOptions = std::map<std::string, RawOption, std::less<>>;

// The command line wins: options of the file that it also has are dropped, lists are joined with
// the file's first.
RawOptions merge(RawOptions command_line, RawOptions file);

// All that `vmm run` needs to know. The configuration has no sinks, networks and disks yet, and a
// flat image is still a file name.
struct RunRequest {
  VmConfig config;
  std::optional<std::string>
      snapshot_file;  // to go on from; config says nothing of the machine then
  RestoreMemory restore_memory;
  std::optional<std::string> flat_file;  // to be read into config.boot, which is a FlatBoot then
  ConsoleSpec serial = StreamConsole{0, 1};
  std::vector<ConsolePortSpec> consoles;  // those of config.virtio's console device
  std::optional<ConsoleSpec> debug_console;
  std::vector<NetworkSpec> networks;
  std::vector<DiskSpec> disks;
  std::vector<PmemSpec> pmem;
  std::optional<VsockSpec> vsock;
  std::vector<ShareSpec> shares;
  std::optional<std::string> control;  // path of the control socket
  std::optional<debug::ServerAddress> gdb;
  bool gdb_wait = false;
  bool gdb_time_goes_on = false;
  CrashAction on_crash;
  std::string symbols;  // a file, or empty
  std::string result;   // a file for the end as JSON, or empty
  bool no_reboot = false;
  std::optional<std::chrono::nanoseconds> timeout;
  std::optional<bool> escape;  // nothing: when the input is a terminal
  std::byte escape_key{0x01};
  bool trace = false;
  std::vector<TraceRule> trace_rules;  // none: all
  bool trace_syscalls = false;
  bool trace_interrupts = false;
  bool trace_requests = false;
  bool quiet = false;
  bool verbose = false;
};

// The kernel command line that --cmdline is appended to.
inline constexpr std::string_view kDefaultCmdline =
    "console=ttyS0 earlyprintk=ttyS0 reboot=k panic=-1";

// Reads all options. Every problem is one sentence in `problems` that begins with the option's
// origin; with none, the result can be used.
RunRequest interpret(const RawOptions& raw, std::vector<std::string>& problems);

}  // namespace vmm::cli

// The language of the control socket (docs/control.md): a JSON object a line, each way.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/block_rates.h"
#include "vmm/vm.h"

namespace vmm::cli {

// What `status` tells.
struct ControlStatus {
  // "running", "paused", "held" (by a debugger), "crashed" (and kept for one), "asleep" (ACPI S3),
  // or "starting" while there is no machine
  std::string state;
  std::chrono::milliseconds uptime{0};  // since the command was started
  std::uint64_t resets = 0;             // of the guest
  std::optional<VmStatus> vm = {};
  VmStats stats = {};
};

// What `trace` tells of one CPU.
struct ControlExits {
  std::uint32_t cpus = 0;  // that the machine has
  std::vector<ExitRecord> records = {};
  std::vector<std::string> symbols = {};  // of each record's RIP; empty when they are not known
};

// What `events` tells of the machine.
struct ControlEvents {
  std::vector<DeviceEvent> records = {};
  std::vector<std::string> symbols = {};  // of where an interrupt met its CPU; likewise
};

// What `sample` tells: for each CPU what it executes, the innermost function first.
struct ControlStack {
  std::uint32_t cpu = 0;
  bool user = false;
  std::vector<std::string> frames = {};  // names where they are known, else hexadecimal addresses
};

// What the commands act on. Called on the control socket's thread.
class ControlTarget {
 public:
  virtual ~ControlTarget() = default;
  virtual ControlStatus control_status() = 0;
  // Returns when the guest stands still. Errors: kTimeout.
  virtual Result<void> control_pause() = 0;
  virtual Result<void> control_resume() = 0;
  virtual Result<void> control_quit() = 0;
  virtual Result<void> control_power_button() = 0;
  virtual Result<void> control_balloon(std::uint64_t bytes) = 0;
  virtual Result<void> control_memory(std::uint64_t bytes) = 0;
  // Tells the guest the image's size, after it has grown to `bytes` when that is given. The size.
  virtual Result<std::uint64_t> control_resize(const std::string& disk,
                                               std::optional<std::uint64_t> bytes) = 0;
  virtual Result<void> control_limit(const std::string& disk, const BlockRates& rates) = 0;
  // Writes the guest to a file, in a moment of rest, and returns when it is on the disk. As an
  // increment of the snapshot `base` unless that is empty.
  virtual Result<void> control_snapshot(const std::string& file, const std::string& base) = 0;
  // The same as an ELF core file.
  virtual Result<void> control_core(const std::string& file) = 0;
  // The last exits of a CPU, at most `most`.
  virtual Result<ControlExits> control_exits(std::uint32_t cpu, std::size_t most) = 0;
  // The last interrupts and requests to devices, at most `most`.
  virtual Result<ControlEvents> control_events(std::size_t most) = 0;
  virtual Result<std::vector<ControlStack>> control_sample() = 0;
  virtual Result<void> control_link(const std::string& net, bool up) = 0;
  // Lets a debugger connect there. Where it listens.
  virtual Result<std::string> control_gdb(const std::string& address) = 0;
  // Plugs in what an option's text means (--disk, --net): its name.
  virtual Result<std::string> control_add_disk(const std::string& options) = 0;
  virtual Result<std::string> control_add_net(const std::string& options) = 0;
  // Returns when it has gone, or stays. Errors: kTimeout when the guest keeps it, unless `force`.
  virtual Result<void> control_remove_disk(const std::string& disk, bool force) = 0;
  virtual Result<void> control_remove_net(const std::string& net, bool force) = 0;
};

// The answer to one request, in one line without its end. Whatever the request is, there is one.
std::string answer_control(std::string_view request, ControlTarget& target);

// The answer to a request that was not read to its end.
std::string control_too_long();

}  // namespace vmm::cli

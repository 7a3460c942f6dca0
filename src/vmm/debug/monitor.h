// The debugger's "monitor" commands: text in, text out, about a machine that stands still.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/debug/breakpoints.h"
#include "vmm/debug/checkpoints.h"
#include "vmm/debug/cpu_state.h"
#include "vmm/debug/symbols.h"
#include "vmm/run_control.h"
#include "vmm/stop_reason.h"
#include "vmm/vm.h"

namespace vmm::debug {

// What the commands may look at.
struct MonitorView {
  RunControl& control;
  unsigned cpu = 0;
  std::function<Result<CpuState>(unsigned)> state;
  const Breakpoints& breakpoints;
  const std::function<VmStats()>& stats;
  const Symbols* symbols = nullptr;
  const StopInfo* crash = nullptr;
  Checkpoints& checkpoints;
  // The machine as it stands, without what the debugger has put there; and back to that.
  std::function<Result<std::shared_ptr<const Snapshot>>()> snapshot;
  // One makes itself so often, by the host's time while the guest runs; 0: none.
  std::function<void(std::chrono::milliseconds)> every;
  std::function<Result<void>(const std::shared_ptr<const Snapshot>&)> reset_to;
  // "on", with a checkpoint every so many steps (0: as usual), "off", or empty for how it stands.
  std::function<Result<std::string>(std::string_view what, std::size_t steps)> record;
  // Whether an NMI may be given to the guest now.
  std::function<Result<void>()> may_nmi;
};

// The number that a word is, hexadecimal after "0x". Errors: kBadConfig.
Result<std::uint64_t> monitor_number(std::string_view text);

// The answer, lines with their ends. A command that is not known is answered with what is. Errors:
// of the host, or what the command says that cannot be.
Result<std::string> run_monitor_command(const MonitorView& view, std::string_view command);

}  // namespace vmm::debug

// The host's side of all ports of the console device: made once, for the machines that follow each
// other in a session.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/console_option.h"
#include "devices/console_size.h"
#include "vmm/console/console_backend.h"
#include "vmm/vm.h"

namespace vmm::cli {

// Used by the main thread; resize() from any, with a machine that lives as long as the call.
class ConsolePorts {
 public:
  using OptionsFor = std::function<ConsoleOptions(const ConsoleSpec&)>;

  // In the order of the options, which is that of VirtioConsoleConfig::ports. `note` is told where
  // a person finds a port. Errors: what a place is refused for.
  Result<void> open(const std::vector<ConsolePortSpec>& ports, const OptionsFor& options_for,
                    const std::function<void(const std::string&)>& note);
  // Gives the configuration's ports their outputs.
  void fill(VmConfig& config) const;
  // `terminal`: the size of the one that standard input is.
  void connect(Vm& vm, ConsoleSize terminal) const;
  void disconnect() const;
  void resize(Vm& vm, ConsoleSize terminal) const;

  std::vector<ConsoleBackend*> backends() const;
  // A line for each, for the menu and for --verbose.
  std::string statistics_text() const;

 private:
  struct Port {
    std::string what = {};  // "console hvc0", "port 'agent'"
    bool console = false;
    bool on_stdio = false;
    std::unique_ptr<ConsoleBackend> host = {};
  };
  std::vector<Port> ports_;
};

}  // namespace vmm::cli

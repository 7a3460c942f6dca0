// The command `vmm`: reads its arguments and hands over.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/ctl_command.h"
#include "cli/diff_command.h"
#include "cli/doctor_command.h"
#include "cli/inspect_command.h"
#include "cli/options.h"
#include "cli/profile_command.h"
#include "cli/run_command.h"
#include "cli/stat_command.h"
#include "cli/test_command.h"
#include "cli/top_command.h"
#include "cli/trace_command.h"
#include "vmm/vm.h"

namespace {

using namespace vmm::cli;

struct Dispatch {
  int operator()(RunCommand& command) const { return run_command(std::move(command.request)); }
  int operator()(const TestCommand& command) const { return test_command(command); }
  int operator()(const CtlCommand& command) const { return ctl_command(command); }
  int operator()(const StatCommand& command) const {
    return command.live ? top_command(command) : stat_command(command);
  }
  int operator()(const TraceCommand& command) const { return trace_command(command); }
  int operator()(const ProfileCommand& command) const { return profile_command(command); }
  int operator()(const InspectCommand& command) const { return inspect_command(command); }
  int operator()(const DiffCommand& command) const { return diff_command(command); }
  int operator()(const DoctorCommand& command) const { return doctor_command(command); }
  int operator()(const PrintOnly& print) const {
    std::fputs(print.text.c_str(), print.exit_code == 0 ? stdout : stderr);
    return print.exit_code;
  }
};

// Whether this is, most likely, about to start a guest.
bool starts_guest(const std::vector<std::string>& arguments) {
  const auto is_help = [](const std::string& word) { return word == "-h" || word == "--help"; };
  return !arguments.empty() && arguments.front() == "run" &&
         std::none_of(arguments.begin(), arguments.end(), is_help);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  // KVM takes as long to get ready as the options take to be read.
  std::shared_ptr<vmm::EarlyKvm> early_kvm;
  if (starts_guest(arguments)) early_kvm = vmm::Vm::prepare_kvm();
  Command command = parse_command_line(arguments);
  if (auto* const run = std::get_if<RunCommand>(&command)) {
    run->request.config.early_kvm = std::move(early_kvm);
  }
  return std::visit(Dispatch{}, command);
}

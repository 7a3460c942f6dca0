// The command `vmm`: reads its arguments and hands over.
#include <cstdio>
#include <string>
#include <vector>

#include "cli/doctor_command.h"
#include "cli/inspect_command.h"
#include "cli/options.h"
#include "cli/run_command.h"

namespace {

using namespace vmm::cli;

struct Dispatch {
  int operator()(RunCommand& command) const { return run_command(std::move(command.request)); }
  int operator()(const InspectCommand& command) const { return inspect_command(command); }
  int operator()(const DoctorCommand& command) const { return doctor_command(command); }
  int operator()(const PrintOnly& print) const {
    std::fputs(print.text.c_str(), print.exit_code == 0 ? stdout : stderr);
    return print.exit_code;
  }
};

}  // namespace

int main(int argc, char** argv) {
  Command command = parse_command_line(std::vector<std::string>(argv + 1, argv + argc));
  return std::visit(Dispatch{}, command);
}

// The command line: which command it names, and that command's options.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "cli/run_options.h"
#include "cli/test_rules.h"

namespace vmm::cli {

struct RunCommand {
  RunRequest request;
};
struct TestCommand {
  std::vector<std::string> images;
  unsigned jobs = 1;
  std::string junit;  // a file, or empty
  TestRules rules;
};
struct InspectCommand {
  std::string file;
  bool json = false;
};
struct DiffCommand {
  std::string before, after;
  std::string symbols;  // a file, or none
  bool json = false;
};
// `vmm ctl`, `vmm snapshot` and `vmm core`.
struct CtlCommand {
  std::string name = "ctl";  // the command that the user wrote
  std::string socket;
  std::vector<std::string> words;
  bool json = false;
};
// `vmm stat` and `vmm top`.
struct StatCommand {
  std::string socket;
  bool json = false;
  bool live = false;
};
struct TraceCommand {
  std::string socket;
  std::string output = "-";
  bool chrome = false;
};
struct ProfileCommand {
  std::string socket;
  std::string output = "-";
  double seconds = 5;
  unsigned hz = 99;
};
struct DoctorCommand {
  bool json = false;
};
// Nothing is left to do but to print: help and version on stdout with status 0, complaints on
// stderr with kExitUsage.
struct PrintOnly {
  std::string text;
  int exit_code = 0;
};

using Command = std::variant<RunCommand, TestCommand, CtlCommand, StatCommand, TraceCommand,
                             ProfileCommand, InspectCommand, DiffCommand, DoctorCommand, PrintOnly>;

// `given` are the arguments without the program's name. Reads the configuration file that they
// name, and nothing else.
Command parse_command_line(const std::vector<std::string>& given);

}  // namespace vmm::cli

#include "cli/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <utility>

#include "cli/config_file.h"
#include "cli/exit_code.h"
#include "cli/help_text.h"
#include "cli/option_values.h"

namespace vmm::cli {
namespace {

// CLI11's help, with descriptions broken into lines.
class WrappingFormatter final : public CLI::Formatter {
 public:
  std::string make_option_desc(const CLI::Option* option) const override {
    constexpr std::size_t kWidth = 62;
    std::string text;
    std::size_t column = 0;
    for (const std::string_view word : split(option->get_description(), ' ')) {
      const bool fits = column + 1 + word.size() <= kWidth;
      if (column != 0) text += fits ? " " : "\n";
      column = column != 0 && fits ? column + 1 + word.size() : word.size();
      text += word;
    }
    return text;
  }
};

// Everything that CLI11 writes into, and the parser itself.
struct Parser {
  CLI::App app{std::string(kAbout), "vmm"};
  CLI::App* run = nullptr;
  CLI::App* ctl = nullptr;
  CLI::App* stat = nullptr;
  CLI::App* top = nullptr;
  CLI::App* trace = nullptr;
  CLI::App* profile = nullptr;
  CLI::App* inspect = nullptr;
  CLI::App* doctor = nullptr;
  std::string config_file;
  CtlCommand ctl_options;
  StatCommand stat_options;
  TraceCommand trace_options;
  ProfileCommand profile_options;
  InspectCommand inspect_options;
  DoctorCommand doctor_options;
  bool version = false;

  Parser();
  // All commands that have options of their own.
  std::array<CLI::App*, 8> commands() const {
    return {run, ctl, stat, top, trace, profile, inspect, doctor};
  }
};

void add_run_option(CLI::App& run, const OptionSpec& spec) {
  std::string names = fmt::format("--{}", spec.name);
  if (spec.short_name != 0) names = fmt::format("-{},{}", spec.short_name, names);
  CLI::Option* option = nullptr;
  if (spec.kind == OptionKind::kFlag) {
    option = run.add_flag(names);
    option->description(std::string(spec.help));
  } else {
    // The texts are taken from the option afterwards.
    const CLI::callback_t accept = [](const CLI::results_t&) { return true; };
    option = run.add_option(names, accept, std::string(spec.help));
    option->type_name(std::string(spec.metavar));
    if (spec.kind == OptionKind::kOptionalValue) {
      option->expected(0, 1);
      option->type_name(fmt::format("[={}]", spec.metavar));
    }
  }
  option->group(std::string(spec.group));
  option->multi_option_policy(spec.kind == OptionKind::kList ? CLI::MultiOptionPolicy::TakeAll
                                                             : CLI::MultiOptionPolicy::TakeLast);
  if (spec.kind == OptionKind::kList) option->allow_extra_args(false);
}

void add_socket(CLI::App& command, std::string& socket) {
  command.add_option("socket", socket, "What its --control says")->type_name("PATH")->required();
}

Parser::Parser() {
  // Subcommands inherit it; what they do not know is complained about here.
  app.formatter(std::make_shared<WrappingFormatter>());
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("REQUIRED", "");
  app.allow_extras();
  app.set_help_flag("-h,--help", "This help");
  app.add_flag("--version", version, "Print the version");
  app.footer(std::string(kMainFooter));

  run = app.add_subcommand("run", "Run a guest");
  run->footer(std::string(kRunFooter));
  for (const OptionSpec& spec : run_option_table()) add_run_option(*run, spec);
  run->add_option("--config", config_file,
                  "Read options from a JSON file; the command line wins over it")
      ->type_name("FILE")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->group("Control");

  ctl = app.add_subcommand("ctl", "Control a running guest");
  add_socket(*ctl, ctl_options.socket);
  ctl->add_option("command", ctl_options.words, "What is to be done, see below")
      ->type_name("COMMAND...")
      ->required();
  ctl->add_flag("--json", ctl_options.json, "For programs");
  ctl->footer(std::string(kCtlFooter));

  stat = app.add_subcommand("stat", "Count what a running guest does");
  add_socket(*stat, stat_options.socket);
  stat->add_flag("--json", stat_options.json, "For programs");
  stat->footer(std::string(kStatFooter));
  top = app.add_subcommand("top", "The same every second, until q is typed");
  add_socket(*top, stat_options.socket);
  trace = app.add_subcommand("trace", "Tell the last exits of a running guest");
  add_socket(*trace, trace_options.socket);
  trace->add_option("-o,--output", trace_options.output, "A file instead of standard output")
      ->type_name("FILE");
  trace->add_flag("--chrome", trace_options.chrome, "For Perfetto and chrome://tracing");
  trace->footer(std::string(kTraceFooter));

  profile = app.add_subcommand("profile", "Find out where a running guest spends its time");
  add_socket(*profile, profile_options.socket);
  profile
      ->add_option("-o,--output", profile_options.output,
                   "A file instead of standard output; a name that ends in .svg: a flame graph")
      ->type_name("FILE");
  profile->add_option("--seconds", profile_options.seconds, "For how long (default 5)")
      ->type_name("N")
      ->check(CLI::Range(0.01, 3600.0));
  profile->add_option("--hz", profile_options.hz, "How often in a second (default 99)")
      ->type_name("N")
      ->check(CLI::Range(1, 10000));
  profile->footer(std::string(kProfileFooter));

  inspect = app.add_subcommand("inspect", "Tell what a kernel image is, or why it cannot boot");
  inspect->add_option("file", inspect_options.file, "Kernel image")->type_name("FILE")->required();
  inspect->add_flag("--json", inspect_options.json, "For programs");
  inspect->footer(std::string(kInspectFooter));

  doctor = app.add_subcommand("doctor", "Tell what this host's KVM offers and lacks");
  doctor->add_flag("--json", doctor_options.json, "For programs");
  doctor->footer(std::string(kDoctorFooter));

  app.add_subcommand("snapshot", "Write a running guest to a file: ctl SOCKET snapshot FILE");
  app.add_subcommand("core", "Write its memory and registers to a core file: ctl SOCKET core FILE");
  app.add_subcommand("restore", "Let a guest go on from such a file: run --restore FILE");
  app.add_subcommand("help", "Help on a command");
}

// Commands that are other words for what a command can do.
void expand(std::vector<std::string>& arguments) {
  if (arguments.empty()) return;
  // 'help run' is 'run --help': CLI11 would take the second word for the command.
  if (arguments.front() == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  }
  if (arguments.empty()) return;
  if (arguments.front() == "restore") {
    arguments.front() = "run";
    const bool named = arguments.size() > 1 && !arguments[1].starts_with("-");
    if (named) arguments.insert(arguments.begin() + 1, "--restore");
  } else if (arguments.front() == "snapshot" || arguments.front() == "core") {
    const std::string command = std::exchange(arguments.front(), "ctl");
    if (arguments.size() > 1 && !arguments[1].starts_with("-")) {
      arguments.insert(arguments.begin() + 2, command);
    }
  }
}

PrintOnly complain(std::string_view command, const std::vector<std::string>& problems) {
  const std::string who = command.empty() ? "vmm" : fmt::format("vmm {}", command);
  std::string text;
  for (const std::string& problem : problems) text += fmt::format("{}: {}\n", who, problem);
  text += fmt::format("Try '{} --help'.\n", who);
  return {std::move(text), kExitUsage};
}

// How many insertions, deletions and replacements lie between two words.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j - 1] + 1, diagonal + 1});
    }
  }
  return row[b.size()];
}

// What somebody meant who wrote an argument that `vmm run` does not have.
std::string suggestion(std::string_view argument) {
  if (!argument.starts_with("-")) return " (a kernel is given with --kernel)";
  std::string_view name = argument.substr(0, argument.find('='));
  name.remove_prefix(std::min(name.find_first_not_of('-'), name.size()));
  // A third of the letters wrong is a slip, more is another word.
  for (const OptionSpec& spec : run_option_table()) {
    const std::size_t close = std::min<std::size_t>(2, spec.name.size() / 3);
    if (distance(name, spec.name) <= close) return fmt::format(" (did you mean --{}?)", spec.name);
  }
  return "";
}

// The command that is being given, by name; empty when none was recognised.
std::string command_name(const Parser& parser) {
  for (const CLI::App* const sub : parser.commands()) {
    if (sub->parsed()) return sub->get_name();
  }
  return "";
}

// CLI11's words for a missing value name a count and a type; ours, what to do.
std::string reword(const CLI::ParseError& error) {
  const std::string text = error.what();
  const auto colon = text.find(": ");
  if (error.get_name() != "ArgumentMismatch" || colon == std::string::npos) return text;
  return text.substr(0, colon) + ": the value is missing";
}

// What was given and nobody asked for.
void report_extras(const Parser& parser, std::vector<std::string>& problems) {
  const std::string command = command_name(parser);
  bool after_option = false;
  for (const std::string& extra : parser.app.remaining(true)) {
    const bool option = extra.starts_with("-");
    // What follows an unknown option is most likely its value.
    if (option || !after_option) {
      problems.push_back(command.empty()
                             ? fmt::format("{}: there is no such command or option", extra)
                         : option ? fmt::format("{}: there is no such option{}", extra,
                                                command == "run" ? suggestion(extra) : "")
                                  : fmt::format("{}: one argument too many{}", extra,
                                                command == "run" ? suggestion(extra) : ""));
    }
    after_option = option && extra.find('=') == std::string::npos;
  }
}

RawOptions run_results(const CLI::App& run) {
  RawOptions raw;
  for (const OptionSpec& spec : run_option_table()) {
    const std::string name = fmt::format("--{}", spec.name);
    const CLI::Option& option = *run.get_option(name);
    if (option.count() != 0) raw[std::string(spec.name)] = {option.results(), name};
  }
  return raw;
}

Command finish_run(const Parser& parser) {
  std::vector<std::string> problems;
  report_extras(parser, problems);
  RawOptions raw = run_results(*parser.run);
  if (!parser.config_file.empty()) {
    auto file = read_config_file(parser.config_file, problems);
    if (!file) return complain("run", {fmt::format("--config: {}", file.error().message())});
    raw = merge(std::move(raw), *std::move(file));
  }
  RunCommand command{interpret(raw, problems)};
  if (!problems.empty()) return complain("run", problems);
  return command;
}

}  // namespace

Command parse_command_line(const std::vector<std::string>& given) {
  Parser parser;
  std::vector<std::string> arguments = given;
  expand(arguments);
  if (arguments.empty()) return PrintOnly{parser.app.help(), kExitUsage};
  try {
    // CLI11 takes them from the end.
    parser.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    for (CLI::App* const sub : parser.commands()) {
      if (sub->parsed()) return PrintOnly{sub->help("vmm"), 0};
    }
    return PrintOnly{parser.app.help(), 0};
  } catch (const CLI::ParseError& error) {
    return complain(command_name(parser), {reword(error)});
  }
  if (parser.run->parsed()) return finish_run(parser);
  std::vector<std::string> problems;
  report_extras(parser, problems);
  if (!problems.empty()) return complain(command_name(parser), problems);
  if (parser.version) return PrintOnly{fmt::format("vmm {}\n", VMM_VERSION), 0};
  if (parser.ctl->parsed()) return parser.ctl_options;
  if (parser.stat->parsed()) return parser.stat_options;
  if (parser.top->parsed()) {
    return StatCommand{.socket = parser.stat_options.socket, .live = true};
  }
  if (parser.trace->parsed()) return parser.trace_options;
  if (parser.profile->parsed()) return parser.profile_options;
  if (parser.inspect->parsed()) return parser.inspect_options;
  if (parser.doctor->parsed()) return parser.doctor_options;
  return complain("", {"a command is missing: run, ctl, stat, top, trace, profile, snapshot, core, "
                       "restore, inspect, "
                       "doctor or help"});
}

}  // namespace vmm::cli

#include "cli/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "cli/config_file.h"
#include "cli/exit_code.h"
#include "cli/help_text.h"
#include "cli/option_values.h"
#include "cli/test_process.h"

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

// What of all that could be parsed has to be there for these arguments. An option costs CLI11 some
// microseconds, and all of them together more than the start of a machine: what no argument names
// is left out. Help is about everything.
class Wanted {
 public:
  explicit Wanted(const std::vector<std::string>& arguments)
      : arguments_(arguments),
        all_(arguments.empty() || any([](const std::string& word) {
               return word == "--help" || (is_short(word) && word.find('h') != word.npos);
             })) {}

  // The first word says it; what comes later and looks the same is a file's name, or a value.
  bool command(std::string_view name) const { return all_ || arguments_.front() == name; }
  bool option(std::string_view name, char short_name) const {
    return all_ || any([name, short_name](const std::string& word) {
             if (is_short(word)) return short_name != 0 && word.find(short_name) != word.npos;
             const std::string_view text = word;
             return text.starts_with("--") && text.substr(2, text.find('=') - 2) == name;
           });
  }

 private:
  // One letter or several: "-q", "-qv".
  static bool is_short(const std::string& word) {
    return word.size() > 1 && word[0] == '-' && word[1] != '-';
  }
  template <typename Predicate>
  bool any(const Predicate& predicate) const {
    return std::any_of(arguments_.begin(), arguments_.end(), predicate);
  }

  const std::vector<std::string>& arguments_;
  const bool all_;
};

constexpr const char* kSnapshotAbout = "Write a running guest to a file: ctl SOCKET snapshot FILE";
constexpr const char* kCoreAbout =
    "Write its memory and registers to a core file: ctl SOCKET core FILE";
constexpr const char* kRestoreAbout = "Let a guest go on from such a file: run --restore FILE";
constexpr const char* kHelpAbout = "Help on a command";

// Everything that CLI11 writes into, and the parser itself.
struct Parser {
  CLI::App app{std::string(kAbout), "vmm"};
  CLI::App* run = nullptr;
  CLI::App* test = nullptr;
  CLI::App* ctl = nullptr;
  CLI::App* stat = nullptr;
  CLI::App* top = nullptr;
  CLI::App* trace = nullptr;
  CLI::App* profile = nullptr;
  CLI::App* inspect = nullptr;
  CLI::App* diff = nullptr;
  CLI::App* doctor = nullptr;
  std::string config_file;
  TestCommand test_options;
  std::string test_seconds;
  CtlCommand ctl_options;
  StatCommand stat_options;
  TraceCommand trace_options;
  ProfileCommand profile_options;
  InspectCommand inspect_options;
  DiffCommand diff_options;
  DoctorCommand doctor_options;
  bool version = false;

  explicit Parser(const Wanted& wanted);
  void add_test();

  // Those of the commands with options of their own that are there.
  std::vector<CLI::App*> commands() const {
    std::vector<CLI::App*> all{run, test, ctl, stat, top, trace, profile, inspect, diff, doctor};
    std::erase(all, nullptr);
    return all;
  }
};

bool is_parsed(const CLI::App* command) { return command != nullptr && command->parsed(); }

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

Parser::Parser(const Wanted& wanted) {
  // Subcommands inherit it; what they do not know is complained about here.
  app.formatter(std::make_shared<WrappingFormatter>());
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("REQUIRED", "");
  app.allow_extras();
  app.set_help_flag("-h,--help", "This help");
  app.add_flag("--version", version, "Print the version");
  app.footer(std::string(kMainFooter));

  if (wanted.command("run")) {
    run = app.add_subcommand("run", "Run a guest");
    run->footer(std::string(kRunFooter));
    for (const OptionSpec& spec : run_option_table()) {
      if (wanted.option(spec.name, spec.short_name)) add_run_option(*run, spec);
    }
    run->add_option("--config", config_file,
                    "Read options from a JSON file; the command line wins over it")
        ->type_name("FILE")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
        ->group("Control");
  }
  if (wanted.command("test")) add_test();
  if (wanted.command("ctl")) {
    ctl = app.add_subcommand("ctl", "Control a running guest");
    add_socket(*ctl, ctl_options.socket);
    ctl->add_option("command", ctl_options.words, "What is to be done, see below")
        ->type_name("COMMAND...")
        ->required();
    ctl->add_flag("--json", ctl_options.json, "For programs");
    ctl->footer(std::string(kCtlFooter));
  }
  if (wanted.command("stat")) {
    stat = app.add_subcommand("stat", "Count what a running guest does");
    add_socket(*stat, stat_options.socket);
    stat->add_flag("--json", stat_options.json, "For programs");
    stat->footer(std::string(kStatFooter));
  }
  if (wanted.command("top")) {
    top = app.add_subcommand("top", "The same every second, until q is typed");
    add_socket(*top, stat_options.socket);
  }
  if (wanted.command("trace")) {
    trace = app.add_subcommand("trace", "Tell the last exits of a running guest");
    add_socket(*trace, trace_options.socket);
    trace->add_option("-o,--output", trace_options.output, "A file instead of standard output")
        ->type_name("FILE");
    trace->add_flag("--chrome", trace_options.chrome, "For Perfetto and chrome://tracing");
    trace->footer(std::string(kTraceFooter));
  }
  if (wanted.command("profile")) {
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
  }
  if (wanted.command("inspect")) {
    inspect = app.add_subcommand("inspect", "Tell what a kernel image is, or why it cannot boot");
    inspect->add_option("file", inspect_options.file, "Kernel image")
        ->type_name("FILE")
        ->required();
    inspect->add_flag("--json", inspect_options.json, "For programs");
    inspect->footer(std::string(kInspectFooter));
  }
  if (wanted.command("diff")) {
    diff = app.add_subcommand("diff", "Tell what differs between two snapshots");
    diff->add_option("before", diff_options.before, "Snapshot")->type_name("A")->required();
    diff->add_option("after", diff_options.after, "Another one")->type_name("B")->required();
    diff->add_option("--symbols", diff_options.symbols,
                     "The kernel's System.map or vmlinux: tell which of its symbols changed")
        ->type_name("FILE");
    diff->add_flag("--json", diff_options.json, "For programs, and all of it");
    diff->footer(std::string(kDiffFooter));
  }
  if (wanted.command("doctor")) {
    doctor = app.add_subcommand("doctor", "Tell what this host's KVM offers and lacks");
    doctor->add_flag("--json", doctor_options.json, "For programs");
    doctor->footer(std::string(kDoctorFooter));
  }
  // Other words for what a command can do (expand()), for the help.
  for (const auto& [name, text] :
       {std::pair{"snapshot", kSnapshotAbout}, std::pair{"core", kCoreAbout},
        std::pair{"restore", kRestoreAbout}, std::pair{"help", kHelpAbout}}) {
    if (wanted.command(name)) app.add_subcommand(name, text);
  }
}

void Parser::add_test() {
  test = app.add_subcommand("test", "Run images that test themselves");
  test->add_option("image", test_options.images, "Kernel images")
      ->type_name("IMAGE...")
      ->required();
  test_options.jobs = std::max(1U, std::thread::hardware_concurrency());
  test->add_option("-j,--jobs", test_options.jobs,
                   "How many run at a time (default: one for each processor)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  test->add_option("--timeout", test_seconds, "How long each may take (default 60)")
      ->type_name("SECONDS");
  test->add_option("--pass-value", test_options.rules.pass_value,
                   "What an image that has passed writes to the debug-exit port (default 0)")
      ->type_name("N");
  test->add_option("--junit", test_options.junit, "Tell the outcome in a file, too, for CI systems")
      ->type_name("FILE");
  test->footer(std::string(kTestFooter));
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
    // As the other commands have their options; the word of the control socket has none.
    if (command == "snapshot") {
      std::replace(arguments.begin(), arguments.end(), std::string("--base"), std::string("base"));
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
    const CLI::Option* const option = run.get_option_no_throw(name);
    if (option != nullptr && option->count() != 0) {
      raw[std::string(spec.name)] = {option->results(), name};
    }
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

// What of `vmm test` is meant for `vmm run`: cut off, as CLI11 would take it for images.
std::vector<std::string> take_run_options(std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() != "test") return {};
  const auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  if (dashes == arguments.end()) return {};
  std::vector<std::string> options(dashes + 1, arguments.end());
  arguments.erase(dashes, arguments.end());
  return options;
}

Command finish_test(const Parser& parser, std::vector<std::string> run_options) {
  TestCommand command = parser.test_options;
  command.rules.run_options = std::move(run_options);
  if (!parser.test_seconds.empty()) {
    const auto timeout = parse_seconds(parser.test_seconds);
    if (!timeout) return complain("test", {"--timeout: " + timeout.error().message()});
    command.rules.timeout = *timeout;
  }
  // What `vmm run` would refuse every time is refused once.
  Command run = parse_command_line(test_arguments(command.images.front(), command.rules));
  if (auto* const refused = std::get_if<PrintOnly>(&run)) return std::move(*refused);
  return command;
}

}  // namespace

Command parse_command_line(const std::vector<std::string>& given) {
  std::vector<std::string> arguments = given;
  expand(arguments);
  std::vector<std::string> run_options = take_run_options(arguments);
  Parser parser{Wanted(arguments)};
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
  if (is_parsed(parser.run)) return finish_run(parser);
  std::vector<std::string> problems;
  report_extras(parser, problems);
  if (!problems.empty()) return complain(command_name(parser), problems);
  if (parser.version) return PrintOnly{fmt::format("vmm {}\n", VMM_VERSION), 0};
  if (is_parsed(parser.test)) return finish_test(parser, std::move(run_options));
  if (is_parsed(parser.ctl)) {
    parser.ctl_options.name = given.front();
    return parser.ctl_options;
  }
  if (is_parsed(parser.stat)) return parser.stat_options;
  if (is_parsed(parser.top)) {
    return StatCommand{.socket = parser.stat_options.socket, .live = true};
  }
  if (is_parsed(parser.trace)) return parser.trace_options;
  if (is_parsed(parser.profile)) return parser.profile_options;
  if (is_parsed(parser.inspect)) return parser.inspect_options;
  if (is_parsed(parser.diff)) return parser.diff_options;
  if (is_parsed(parser.doctor)) return parser.doctor_options;
  return complain(
      "", {"a command is missing: run, test, ctl, stat, top, trace, profile, snapshot, core, "
           "restore, inspect, diff, doctor or help"});
}

}  // namespace vmm::cli

#include "cli/run_command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/exit_code.h"
#include "cli/run_session.h"
#include "cli/signal_watch.h"
#include "cli/terminal.h"
#include "cli/write_output.h"

namespace vmm::cli {
namespace {

SessionEnd failure(const Error& error) {
  return {.exit_code = exit_code(error),
          .reason = "error",
          .value = {},
          .line = error.message(),
          .report = {}};
}

std::string result_json(const SessionEnd& end) {
  nlohmann::ordered_json json{
      {"reason", end.reason}, {"exit_status", end.exit_code}, {"message", end.line}};
  if (end.value) json["value"] = *end.value;
  if (!end.report.empty()) json["report"] = end.report;
  // Names of files, and text of the guest's, need not be UTF-8.
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Result<SessionEnd> run_session(RunRequest request, Terminal& terminal) {
  RunSession session(std::move(request), terminal);
  // Before all other threads, so that they inherit the blocked signals.
  const auto signals =
      VMM_TRY(SignalWatch::create([&session](int signal) { session.on_signal(signal); }));
  return session.run(*signals);
}

}  // namespace

int run_command(RunRequest request) {
  // A reader of our output that goes away is an error of write(2), not the guest's death.
  ::signal(SIGPIPE, SIG_IGN);
  // An image that may not grow any further is an error of the guest's write.
  ::signal(SIGXFSZ, SIG_IGN);
  const bool quiet = request.quiet;
  Terminal terminal(STDIN_FILENO);
  const auto complain = [&terminal](const Error& error) {
    terminal.say(fmt::format("vmm: {}\n", error.message()));
    return exit_code(error);
  };
  std::optional<OutputFile> result;
  if (!request.result.empty()) {
    auto file = OutputFile::open(request.result);
    if (!file) return complain(std::move(file).error().wrap("Open the result (--result)"));
    result.emplace(*std::move(file));
  }
  const Result<SessionEnd> ended = run_session(std::move(request), terminal);
  terminal.restore();
  const SessionEnd end = ended ? *ended : failure(ended.error());
  if (!ended || !quiet) {
    terminal.say(fmt::format("vmm: {}\n", end.line));
    if (!end.report.empty()) {
      terminal.say(end.report.ends_with('\n') ? end.report : end.report + "\n");
    }
  }
  if (result) {
    auto written = result->finish(result_json(end));
    if (!written) return complain(std::move(written).error().wrap("Write the result (--result)"));
  }
  return end.exit_code;
}

}  // namespace vmm::cli

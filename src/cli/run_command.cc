#include "cli/run_command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "cli/exit_code.h"
#include "cli/run_session.h"
#include "cli/signal_watch.h"
#include "cli/terminal.h"

namespace vmm::cli {
namespace {

int complain(Terminal& terminal, const Error& error) {
  terminal.restore();
  terminal.say(fmt::format("vmm: {}\n", error.message()));
  return exit_code(error);
}

}  // namespace

int run_command(RunRequest request) {
  // A reader of our output that goes away is an error of write(2), not the guest's death.
  ::signal(SIGPIPE, SIG_IGN);
  // An image that may not grow any further is an error of the guest's write.
  ::signal(SIGXFSZ, SIG_IGN);
  const bool quiet = request.quiet;
  Terminal terminal(STDIN_FILENO);
  RunSession session(std::move(request), terminal);
  // Before all other threads, so that they inherit the blocked signals.
  const auto signals = SignalWatch::create([&session](int signal) { session.on_signal(signal); });
  if (!signals) return complain(terminal, signals.error());
  const Result<SessionEnd> end = session.run(**signals);
  if (!end) return complain(terminal, end.error());
  terminal.restore();
  if (!quiet) {
    terminal.say(fmt::format("vmm: {}\n", end->line));
    if (!end->report.empty()) {
      terminal.say(end->report.ends_with('\n') ? end->report : end->report + "\n");
    }
  }
  return end->exit_code;
}

}  // namespace vmm::cli

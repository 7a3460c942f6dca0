#include "cli/top_command.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/control_client.h"
#include "cli/exit_code.h"
#include "cli/stat_command.h"
#include "cli/stat_text.h"
#include "cli/terminal.h"

namespace vmm::cli {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPeriod{1000};
constexpr std::uint16_t kRows = 24;     // of a terminal that does not say
constexpr std::size_t kOtherRows = 20;  // that are no addresses
constexpr char kInterrupt = 0x03;       // Ctrl-C, which is no signal while raw
// The screen of its own that terminals have for this, and back (xterm's 1049).
constexpr const char* kEnter = "\x1b[?1049h\x1b[?25l";
constexpr const char* kLeave = "\x1b[?25h\x1b[?1049l";

// Whether somebody wants the end, waiting for it until the next picture is due.
bool wants_end(steady_clock::time_point until) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, static_cast<int>(left)) <= 0) continue;
    char key = 0;
    if (::read(STDIN_FILENO, &key, 1) != 1) return true;
    if (key == 'q' || key == 'Q' || key == kInterrupt) return true;
  }
}

// From the top left corner; each line, and what is below, is cleared. As many lines as there are.
std::string picture(const std::string& text, std::size_t rows) {
  std::string out = "\x1b[H";
  std::size_t lines = 0;
  for (const char c : text) {
    if (c != '\n') {
      out += c;
      continue;
    }
    out += "\x1b[K";
    if (++lines >= rows) return out;
    out += "\r\n";
  }
  return out + "\x1b[J";
}

Result<void> show(const std::string& socket, const Terminal& terminal) {
  std::optional<json> before;
  auto at = steady_clock::now();
  for (auto due = at;;) {
    json now = VMM_TRY(ask_control(socket, "stat", json::object()));
    const auto asked = steady_clock::now();
    const std::size_t rows = terminal.size().rows == 0 ? kRows : terminal.size().rows;
    const std::size_t places = rows > kOtherRows + 5 ? rows - kOtherRows : 5;
    const double seconds = std::chrono::duration<double>(asked - at).count();
    std::string text;
    try {
      text = "vmm top: q ends\n" + stat_text(now, before ? &*before : nullptr, seconds, places);
    } catch (const json::exception& error) {
      return fail(ErrorCode::kIo, "The answer cannot be understood: {}", error.what());
    }
    std::fputs(picture(text, rows).c_str(), stdout);
    std::fflush(stdout);
    before = std::move(now);
    at = asked;
    due += kPeriod;
    if (wants_end(due)) return {};
  }
}

}  // namespace

int top_command(const StatCommand& command) {
  Terminal terminal(STDIN_FILENO);
  if (!terminal.is_terminal() || ::isatty(STDOUT_FILENO) != 1) return stat_command(command);
  Result<void> done = terminal.make_raw();
  if (done) {
    std::fputs(kEnter, stdout);
    done = show(command.socket, terminal);
    std::fputs(kLeave, stdout);
    std::fflush(stdout);
  }
  terminal.restore();
  if (done) return kExitOk;
  terminal.say(fmt::format("vmm top: {}\n", done.error().message()));
  return exit_code(done.error());
}

}  // namespace vmm::cli

#include "cli/terminal.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string>

namespace vmm::cli {
namespace {

constexpr std::array kCrashes{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};

// For the signal handler: written before g_fd says that they are there.
termios g_original;
std::atomic<int> g_fd{-1};

// tcsetattr(3) and raise(3) are async-signal-safe. SA_RESETHAND has put the default action back, so
// the process dies of the signal as it would have.
void on_crash(int signal) {
  const int fd = g_fd.load();
  if (fd >= 0) ::tcsetattr(fd, TCSANOW, &g_original);
  ::raise(signal);
}

void handle_crashes(bool on) {
  struct sigaction action {};
  action.sa_handler = on ? on_crash : SIG_DFL;
  action.sa_flags = on ? static_cast<int>(SA_RESETHAND | SA_NODEFER) : 0;
  for (const int signal : kCrashes) ::sigaction(signal, &action, nullptr);
}

bool set_raw(int fd) {
  termios mode = g_original;
  ::cfmakeraw(&mode);
  return ::tcsetattr(fd, TCSANOW, &mode) == 0;
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

Terminal::Terminal(int fd) : fd_(fd), is_terminal_(::isatty(fd) == 1) {}

Terminal::~Terminal() { restore(); }

ConsoleSize Terminal::size() const {
  winsize size{};
  if (!is_terminal_ || ::ioctl(fd_, TIOCGWINSZ, &size) != 0) return {};
  return {.columns = size.ws_col, .rows = size.ws_row};
}

Result<void> Terminal::make_raw() {
  if (!is_terminal_) return {};
  const std::lock_guard guard(mutex_);
  if (raw_) return {};
  if (::tcgetattr(fd_, &g_original) != 0) return fail_errno(errno, "Read the terminal's mode");
  g_fd = fd_;
  handle_crashes(true);
  if (!set_raw(fd_)) return fail_errno(errno, "Switch the terminal to raw mode");
  raw_ = true;
  return {};
}

void Terminal::restore() {
  const std::lock_guard guard(mutex_);
  if (!raw_) return;
  // TCSADRAIN would wait for output that a stopped terminal never takes.
  ::tcsetattr(fd_, TCSANOW, &g_original);
  g_fd = -1;
  handle_crashes(false);
  raw_ = false;
}

void Terminal::suspend(void (*stop)()) {
  const std::lock_guard guard(mutex_);
  if (raw_) ::tcsetattr(fd_, TCSANOW, &g_original);
  stop();
  if (raw_) set_raw(fd_);
}

void Terminal::resume() {
  const std::lock_guard guard(mutex_);
  if (raw_) set_raw(fd_);
}

void Terminal::say(std::string_view text) {
  const std::lock_guard guard(mutex_);
  if (!raw_) {
    write_all(text);
    return;
  }
  std::string converted;
  for (const char c : text) {
    if (c == '\n') converted += '\r';
    converted += c;
  }
  write_all(converted);
}

}  // namespace vmm::cli

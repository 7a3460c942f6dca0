// The terminal that the command was started on: raw while a guest has it, and as it was on every
// way out.
#pragma once

#include <mutex>
#include <string_view>

#include "base/result.h"
#include "devices/console_size.h"

namespace vmm::cli {

// At most one exists. Restores on destruction; while raw, a handler for the signals of a crash
// (SIGSEGV, SIGABRT, ...) restores, too, and lets the crash go on. Any thread.
class Terminal {
 public:
  // `fd` is a terminal or not; then nothing here does anything.
  explicit Terminal(int fd);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool is_terminal() const noexcept { return is_terminal_; }

  // How large it is now; unknown when it is no terminal, or does not know itself.
  ConsoleSize size() const;

  // Every key goes to the program as it is typed, and output is not changed. Errors: kIo.
  Result<void> make_raw();
  // As it was when this object was made.
  void restore();
  // As it was while `stop` runs, which returns when the process has been continued.
  void suspend(void (*stop)());
  // After a stop that suspend() knew nothing of (SIGSTOP): raw again if it was.
  void resume();

  // Prints text to stderr; its line ends become CR LF while raw, when nobody else adds the CR.
  void say(std::string_view text);

 private:
  const int fd_;
  const bool is_terminal_;
  std::mutex mutex_;  // guards all below, and the order of lines on stderr
  bool raw_ = false;
};

}  // namespace vmm::cli

// What is typed at a terminal, split into what the guest gets and what is meant for the command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmm::cli {

// Asked for with the escape key (Ctrl-A unless configured) and one more:
//   x        quit                c   menu          a, or the escape key itself: one escape key
// In the menu: h or ? help, s statistics, p processors, q or x quit; c, Enter and Esc go back to
// the guest. After the escape key an unknown key goes to the guest together with it; in the menu it
// shows the help.
enum class EscapeCommand : std::uint8_t {
  kQuit,
  kMenu,
  kHelp,
  kStatistics,
  kProcessors,
  kContinue
};

// A state machine: sequences may arrive in any pieces. Used by one thread.
class EscapeParser {
 public:
  explicit EscapeParser(std::byte key = std::byte{0x01}) : key_(key) {}

  struct Output {
    std::vector<std::byte> to_guest;
    std::vector<EscapeCommand> commands;
  };
  Output feed(std::span<const std::byte> typed);

 private:
  enum class State : std::uint8_t { kPlain, kEscaped, kMenu };
  void feed_escaped(std::byte typed, Output& output);
  void feed_menu(std::byte typed, Output& output);

  std::byte key_;
  State state_ = State::kPlain;
};

}  // namespace vmm::cli

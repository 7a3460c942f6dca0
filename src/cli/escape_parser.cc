#include "cli/escape_parser.h"

namespace vmm::cli {

EscapeParser::Output EscapeParser::feed(std::span<const std::byte> typed) {
  Output output;
  output.to_guest.reserve(typed.size() + 1);
  for (const std::byte byte : typed) {
    switch (state_) {
      case State::kPlain:
        if (byte == key_) {
          state_ = State::kEscaped;
        } else {
          output.to_guest.push_back(byte);
        }
        break;
      case State::kEscaped:
        feed_escaped(byte, output);
        break;
      case State::kMenu:
        feed_menu(byte, output);
        break;
    }
  }
  return output;
}

void EscapeParser::feed_escaped(std::byte typed, Output& output) {
  state_ = State::kPlain;
  if (typed == key_) {
    output.to_guest.push_back(key_);
    return;
  }
  switch (std::to_integer<char>(typed)) {
    case 'a':
      output.to_guest.push_back(key_);
      break;
    case 'x':
      output.commands.push_back(EscapeCommand::kQuit);
      break;
    case 'c':
      state_ = State::kMenu;
      output.commands.push_back(EscapeCommand::kMenu);
      break;
    default:
      output.to_guest.push_back(key_);
      output.to_guest.push_back(typed);
      break;
  }
}

void EscapeParser::feed_menu(std::byte typed, Output& output) {
  state_ = State::kPlain;
  switch (std::to_integer<char>(typed)) {
    case 's':
      output.commands.push_back(EscapeCommand::kStatistics);
      break;
    case 'p':
      output.commands.push_back(EscapeCommand::kProcessors);
      break;
    case 'q':
    case 'x':
      output.commands.push_back(EscapeCommand::kQuit);
      break;
    case 'c':
    case '\r':
    case '\n':
    case '\x1b':
      output.commands.push_back(EscapeCommand::kContinue);
      break;
    default:
      state_ = State::kMenu;
      output.commands.push_back(EscapeCommand::kHelp);
      break;
  }
}

}  // namespace vmm::cli

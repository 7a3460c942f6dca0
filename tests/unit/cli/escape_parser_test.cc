#include "cli/escape_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace vmm::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string feed(EscapeParser& parser, std::string_view typed,
                 std::vector<EscapeCommand>* commands = nullptr) {
  const auto output = parser.feed(std::as_bytes(std::span(typed.data(), typed.size())));
  if (commands != nullptr) {
    commands->insert(commands->end(), output.commands.begin(), output.commands.end());
  }
  return {reinterpret_cast<const char*>(output.to_guest.data()), output.to_guest.size()};
}

std::vector<EscapeCommand> commands_of(std::string_view typed) {
  EscapeParser parser;
  std::vector<EscapeCommand> commands;
  feed(parser, typed, &commands);
  return commands;
}

TEST(EscapeParser, OrdinaryBytesPass) {
  EscapeParser parser;
  EXPECT_EQ(feed(parser, "ls\r\x03\x1a\xff"), "ls\r\x03\x1a\xff");
}

TEST(EscapeParser, CommandsDoNotReachTheGuest) {
  EscapeParser parser;
  std::vector<EscapeCommand> commands;
  EXPECT_EQ(feed(parser, "a\x01xb", &commands), "ab");
  EXPECT_THAT(commands, ElementsAre(EscapeCommand::kQuit));
}

TEST(EscapeParser, EscapeKeyItselfIsSentOnce) {
  EscapeParser parser;
  EXPECT_EQ(feed(parser, "\x01\x01"), "\x01");
  EXPECT_EQ(feed(parser,
                 "\x01"
                 "a"),
            "\x01");
  EXPECT_EQ(feed(parser, "\x01\x01\x01\x01x"), "\x01\x01x");
}

TEST(EscapeParser, UnknownKeyPassesWithTheEscapeKey) {
  EscapeParser parser;
  EXPECT_EQ(feed(parser, "\x01z"), "\x01z");
}

TEST(EscapeParser, SequenceMayBeSplitAnywhere) {
  EscapeParser parser;
  std::vector<EscapeCommand> commands;
  EXPECT_EQ(feed(parser, "a\x01", &commands), "a");
  EXPECT_EQ(feed(parser, "", &commands), "");
  EXPECT_EQ(feed(parser, "c", &commands), "");
  EXPECT_EQ(feed(parser, "s", &commands), "");
  EXPECT_EQ(feed(parser, "x\x01", &commands), "x");
  EXPECT_EQ(feed(parser, "\x01y", &commands), "\x01y");
  EXPECT_THAT(commands, ElementsAre(EscapeCommand::kMenu, EscapeCommand::kStatistics));
}

TEST(EscapeParser, MenuKeys) {
  EXPECT_THAT(commands_of("\x01"
                          "cp"),
              ElementsAre(EscapeCommand::kMenu, EscapeCommand::kProcessors));
  EXPECT_THAT(commands_of("\x01"
                          "cq"),
              ElementsAre(EscapeCommand::kMenu, EscapeCommand::kQuit));
  EXPECT_THAT(commands_of("\x01"
                          "c\r"),
              ElementsAre(EscapeCommand::kMenu, EscapeCommand::kContinue));
}

TEST(EscapeParser, UnknownMenuKeyShowsHelpAndStaysThere) {
  EscapeParser parser;
  std::vector<EscapeCommand> commands;
  EXPECT_EQ(feed(parser,
                 "\x01"
                 "czq",
                 &commands),
            "");
  EXPECT_THAT(commands,
              ElementsAre(EscapeCommand::kMenu, EscapeCommand::kHelp, EscapeCommand::kQuit));
}

TEST(EscapeParser, AnotherKeyLeavesCtrlAAlone) {
  EscapeParser parser(std::byte{0x14});
  std::vector<EscapeCommand> commands;
  EXPECT_EQ(feed(parser, "\x01x\x14x", &commands), "\x01x");
  EXPECT_THAT(commands, ElementsAre(EscapeCommand::kQuit));
}

}  // namespace
}  // namespace vmm::cli

#include "cli/console_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/options.h"

namespace vmm::cli {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

std::string refusal(std::string_view text) {
  const auto port = parse_console(text);
  return port ? "accepted" : port.error().message();
}

RunRequest run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "run");
  Command command = parse_command_line(arguments);
  if (auto* const run = std::get_if<RunCommand>(&command)) return run->request;
  ADD_FAILURE() << std::get<PrintOnly>(command).text;
  return {};
}

std::string complaint(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "run");
  Command command = parse_command_line(arguments);
  auto* const print = std::get_if<PrintOnly>(&command);
  return print == nullptr ? "accepted" : print->text;
}

TEST(ConsoleOption, Place_isThatOfASerialPort) {
  EXPECT_TRUE(parse_console("stdio")->on_stdio());
  EXPECT_TRUE(std::holds_alternative<PtyConsole>(parse_console("pty")->where));
  EXPECT_EQ(std::get<UnixConsole>(parse_console("unix:/tmp/a")->where).path, "/tmp/a");
  EXPECT_EQ(parse_console("null")->name, "");
}

TEST(ConsoleOption, Name_makesAPortForPrograms) {
  const auto port = parse_console("unix:/tmp/a,name=org.example.agent");
  ASSERT_TRUE(port);
  EXPECT_EQ(port->name, "org.example.agent");
  EXPECT_EQ(std::get<UnixConsole>(port->where).path, "/tmp/a");
}

TEST(ConsoleOption, AnythingElse_isRefused) {
  EXPECT_THAT(refusal("tty"), HasSubstr("stdio, file:PATH, pty, unix:PATH, null"));
  EXPECT_THAT(refusal("null,size=3"), HasSubstr("only name=NAME"));
  EXPECT_THAT(refusal("null,name="), HasSubstr("empty"));
}

TEST(ConsoleOption, Ports_areOneDevice) {
  const RunRequest request = run({"--console", "pty", "--console", "null,name=a"});
  ASSERT_EQ(request.config.virtio.size(), 1U);
  const auto& device = std::get<VirtioConsoleConfig>(request.config.virtio[0]);
  ASSERT_EQ(device.ports.size(), 2U);
  EXPECT_EQ(device.ports[0].name, "");
  EXPECT_EQ(device.ports[1].name, "a");
  EXPECT_TRUE(std::holds_alternative<StreamConsole>(request.serial));
}

TEST(ConsoleOption, ConsoleOnStdio_takesItFromTheSerialPort) {
  const RunRequest request = run({"--console", "stdio"});
  EXPECT_TRUE(std::holds_alternative<NullConsole>(request.serial));
}

TEST(ConsoleOption, StdioForBoth_isRefused) {
  EXPECT_THAT(complaint({"--console", "stdio", "--serial", "stdio"}), HasSubstr("--serial stdio"));
  EXPECT_THAT(complaint({"--console", "stdio", "--console", "stdio,name=a"}),
              HasSubstr("only one can be on stdio"));
}

TEST(ConsoleOption, ConsoleOnStdio_isLinuxsLast) {
  const auto cmdline = [](std::vector<std::string> options) {
    options.insert(options.begin(), {"--kernel", "bzImage"});
    return std::get<KernelBoot>(run(options).config.boot).linux_cmdline;
  };
  EXPECT_THAT(cmdline({"--console", "stdio"}), EndsWith(" console=hvc0"));
  EXPECT_THAT(cmdline({"--console", "null,name=a", "--console", "pty", "--console", "stdio"}),
              EndsWith(" console=hvc1"));
  EXPECT_THAT(cmdline({"--console", "pty"}), Not(HasSubstr("hvc")));
  EXPECT_THAT(cmdline({"--console", "stdio,name=a"}), Not(HasSubstr("hvc")));
  EXPECT_EQ(cmdline({"--console", "stdio", "--cmdline-only"}), "");
}

TEST(ConsoleOption, NamesThatCannotBe_areRefused) {
  EXPECT_THAT(complaint({"--console", "null,name=a", "--console", "null,name=a"}),
              HasSubstr("Two console ports have the name 'a'"));
  EXPECT_THAT(complaint({"--console", "null,name=" + std::string(65, 'x')}),
              HasSubstr("at most 64"));
  EXPECT_THAT(complaint({"--console", "null,name=a b"}), HasSubstr("no spaces"));
}

}  // namespace
}  // namespace vmm::cli

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "console_support.h"
#include "vmm/console/console_backend.h"

namespace vmm {
namespace {

using test::bytes_of;
using test::eventually;
using test::SlowReceiver;

std::string socket_path(const char* name) {
  return std::filesystem::temp_directory_path() /
         ("vmm-" + std::string(name) + "-" + std::to_string(::getpid()));
}

UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fd.reset();
  }
  return fd;
}

UniqueFd open_slave(const ConsoleBackend& console) {
  return UniqueFd(::open(console.place().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
}

TEST(UnixConsole, ClientTalksWithTheGuest) {
  const std::string path = socket_path("talk");
  SlowReceiver receiver;
  const auto console = ConsoleBackend::create(UnixConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->connect_input(receiver.input());
  const UniqueFd client = connect_to(path);
  ASSERT_TRUE(client);
  EXPECT_EQ(::write(client.get(), "ls\n", 3), 3);
  EXPECT_TRUE(receiver.receive(3));
  EXPECT_EQ(receiver.received(), "ls\n");
  (*console)->write(bytes_of("bin dev"));
  EXPECT_EQ(test::read_text(client.get(), 7), "bin dev");
}

TEST(UnixConsole, PeersThatComeAndGo_areTold) {
  const std::string path = socket_path("peers");
  SlowReceiver receiver;
  const auto console = ConsoleBackend::create(UnixConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->connect_input(receiver.input());
  std::atomic<int> came{0}, gone{0};
  (*console)->on_peer([&](bool present) { ++(present ? came : gone); });
  EXPECT_TRUE(eventually([&] { return gone == 1; })) << "there is nobody at first";
  {
    const UniqueFd client = connect_to(path);
    ASSERT_TRUE(client);
    EXPECT_TRUE(eventually([&] { return came == 1; }));
    const std::string text = test::pattern(100);
    EXPECT_EQ(::write(client.get(), text.data(), text.size()), 100);
  }
  // The receiver has taken 16 bytes, and holds the rest up.
  EXPECT_TRUE(receiver.receive(84));
  EXPECT_TRUE(receiver.receive(100));
  EXPECT_TRUE(eventually([&] { return gone == 2; }));
  (*console)->on_peer({});
  const UniqueFd other = connect_to(path);
  (*console)->write(bytes_of("x"));
  EXPECT_EQ(test::read_text(other.get(), 1), "x");
  EXPECT_EQ(came, 1);
}

TEST(UnixConsole, LateClientSeesTheRecentOutput) {
  const std::string path = socket_path("late");
  const auto console = ConsoleBackend::create(UnixConsole{path}, {.recent_output = 8});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->write(bytes_of("0123456789abcdef"));
  const UniqueFd client = connect_to(path);
  EXPECT_EQ(test::read_text(client.get(), 8), "89abcdef");
  (*console)->write(bytes_of("next"));
  EXPECT_EQ(test::read_text(client.get(), 4), "next");
}

TEST(UnixConsole, SecondClientIsServedWhenTheFirstLeaves) {
  const std::string path = socket_path("second");
  const auto console = ConsoleBackend::create(UnixConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  UniqueFd first = connect_to(path);
  (*console)->write(bytes_of("one"));
  EXPECT_EQ(test::read_text(first.get(), 3), "one");
  const UniqueFd second = connect_to(path);
  ASSERT_TRUE(second);
  pollfd ask{second.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ask, 1, 50), 0);
  first.reset();
  EXPECT_EQ(test::read_text(second.get(), 3), "one");
  (*console)->write(bytes_of("two"));
  EXPECT_EQ(test::read_text(second.get(), 3), "two");
}

TEST(UnixConsole, InputOfAClientThatLeftAtOnceIsNotLost) {
  const std::string path = socket_path("gone");
  SlowReceiver receiver;
  const auto console = ConsoleBackend::create(UnixConsole{path}, {.input_buffer = KiB(8)});
  ASSERT_TRUE(console) << console.error().message();
  const std::string text = test::pattern(40'000);
  UniqueFd client = connect_to(path);
  EXPECT_EQ(::write(client.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  client.reset();
  (*console)->write(bytes_of("an echo that nobody reads"));
  (*console)->connect_input(receiver.input());
  EXPECT_TRUE(receiver.receive(text.size()));
  EXPECT_EQ(receiver.received(), text);
}

TEST(UnixConsole, SlowClientLosesNothing) {
  const std::string path = socket_path("slow");
  const auto console = ConsoleBackend::create(UnixConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  const UniqueFd client = connect_to(path);
  (*console)->write(bytes_of("!"));
  EXPECT_EQ(test::read_text(client.get(), 1), "!");
  const std::string text = test::pattern(700'000);
  (*console)->write(bytes_of(text));
  EXPECT_EQ(test::read_text(client.get(), text.size()), text);
  EXPECT_EQ((*console)->stats().output_dropped, 0U);
}

TEST(UnixConsole, SocketIsPrivateAndRemovedAtTheEnd) {
  const std::string path = socket_path("removed");
  {
    const auto console = ConsoleBackend::create(UnixConsole{path});
    ASSERT_TRUE(console) << console.error().message();
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_TRUE(S_ISSOCK(status.st_mode));
    EXPECT_EQ(status.st_mode & 0177, 0U);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(UnixConsole, ReplacesAStaleSocketFile) {
  const std::string path = socket_path("stale");
  {
    const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
  }
  const auto console = ConsoleBackend::create(UnixConsole{path});
  EXPECT_TRUE(console) << console.error().message();
}

TEST(UnixConsole, RefusesASocketInUseAndAFileThatIsNone) {
  const std::string path = socket_path("busy");
  const auto console = ConsoleBackend::create(UnixConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  const auto again = ConsoleBackend::create(UnixConsole{path});
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().message().find("in use"), std::string::npos);

  const std::string file = socket_path("file");
  std::ofstream(file) << "precious";
  const auto on_file = ConsoleBackend::create(UnixConsole{file});
  ASSERT_FALSE(on_file);
  EXPECT_NE(on_file.error().message().find("not a socket"), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(file), 8U);
  std::filesystem::remove(file);
}

TEST(UnixConsole, RefusesAPathThatIsTooLong) {
  const auto console = ConsoleBackend::create(UnixConsole{"/tmp/" + std::string(200, 'x')});
  ASSERT_FALSE(console);
  EXPECT_EQ(console.error().code(), ErrorCode::kBadConfig);
}

TEST(PtyConsole, PeerTalksWithTheGuestInRawMode) {
  SlowReceiver receiver;
  const auto console = ConsoleBackend::create(PtyConsole{});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->connect_input(receiver.input());
  const UniqueFd slave = open_slave(**console);
  ASSERT_TRUE(slave);
  termios mode{};
  ASSERT_EQ(::tcgetattr(slave.get(), &mode), 0);
  EXPECT_EQ(mode.c_lflag & static_cast<tcflag_t>(ECHO | ICANON), 0U);
  EXPECT_EQ(::write(slave.get(), "a\003", 2), 2);
  EXPECT_TRUE(receiver.receive(2));
  EXPECT_EQ(receiver.received(), "a\003");
  (*console)->write(bytes_of("line\n"));
  EXPECT_EQ(test::read_text(slave.get(), 5), "line\n");
}

TEST(PtyConsole, OutputDoesNotStallWhileNobodyLooks) {
  const auto console = ConsoleBackend::create(PtyConsole{}, {.output_buffer = KiB(64)});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->write(bytes_of(test::pattern(MiB(1))));
  EXPECT_TRUE((*console)->writable());
  EXPECT_EQ((*console)->stats().output_dropped, 0U);
}

TEST(PtyConsole, SurvivesThatThePeerCloses) {
  SlowReceiver receiver;
  const auto console = ConsoleBackend::create(PtyConsole{}, {.recent_output = KiB(4)});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->connect_input(receiver.input());
  UniqueFd slave = open_slave(**console);
  EXPECT_EQ(::write(slave.get(), "1", 1), 1);
  EXPECT_TRUE(receiver.receive(1));
  slave.reset();
  (*console)->write(bytes_of("meanwhile"));
  const UniqueFd again = open_slave(**console);
  EXPECT_EQ(test::read_text(again.get(), 9), "meanwhile");
  EXPECT_EQ(::write(again.get(), "2", 1), 1);
  EXPECT_TRUE(receiver.receive(2));
  EXPECT_EQ(receiver.received(), "12");
}

}  // namespace
}  // namespace vmm

#include "vmm/control/line_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/support/scratch_directory.h"
#include "vmm/control/line_client.h"
#include "vmm/unix_listener.h"

namespace vmm {
namespace {

constexpr std::chrono::minutes kPatience{1};

class LineServerTest : public testing::Test {
 protected:
  void start(LineServer::Options options = {}) {
    auto server = LineServer::create(
        path_,
        [this](std::string_view line) {
          ++asked_;
          if (line.starts_with("repeat ")) return std::string(100'000, line.back());
          return "you said " + std::string(line);
        },
        std::move(options));
    ASSERT_TRUE(server) << server.error().message();
    server_ = *std::move(server);
  }
  UniqueFd connect() {
    const sockaddr_un address = unix_address(path_).value();
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    return socket;
  }
  static void send(const UniqueFd& socket, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // sent away meanwhile
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // Up to the line's end, which goes; or to the end of the conversation.
  static std::string receive(const UniqueFd& socket) {
    std::string line;
    char byte = 0;
    while (::recv(socket.get(), &byte, 1, 0) == 1) {
      if (byte == '\n') return line;
      line += byte;
    }
    return line + " (end)";
  }

  test::ScratchDirectory folder_;
  std::string path_ = folder_.file("socket");
  std::atomic<int> asked_{0};
  std::unique_ptr<LineServer> server_;
};

TEST_F(LineServerTest, Lines_areAnsweredInOrder) {
  start();
  const UniqueFd client = connect();
  send(client, "one\ntw");
  EXPECT_EQ(receive(client), "you said one");
  send(client, "o\n\nthree\n");
  EXPECT_EQ(receive(client), "you said two");
  EXPECT_EQ(receive(client), "you said three");
  EXPECT_EQ(asked_, 3);
}

TEST_F(LineServerTest, Clients_areServedSideBySide) {
  start();
  const UniqueFd first = connect(), second = connect();
  send(first, "half a li");
  send(second, "b\n");
  EXPECT_EQ(receive(second), "you said b");
  send(first, "ne\n");
  EXPECT_EQ(receive(first), "you said half a line");
}

TEST_F(LineServerTest, ClientThatHasSentAll_getsAllAnswers) {
  start();
  const UniqueFd client = connect();
  send(client, "a\nb\n");
  ::shutdown(client.get(), SHUT_WR);
  EXPECT_EQ(receive(client), "you said a");
  EXPECT_EQ(receive(client), "you said b");
  EXPECT_EQ(receive(client), " (end)");
}

TEST_F(LineServerTest, LineThatIsTooLong_endsTheConversation) {
  start({.most_line = 100, .too_long = "enough"});
  const UniqueFd client = connect();
  send(client, std::string(300, 'x'));
  EXPECT_EQ(receive(client), "enough");
  EXPECT_EQ(receive(client), " (end)");
  EXPECT_EQ(asked_, 0);
  const UniqueFd other = connect();
  send(other, "still there\n");
  EXPECT_EQ(receive(other), "you said still there");
}

TEST_F(LineServerTest, ClientThatReadsNothing_isNotAskedForMore) {
  constexpr std::size_t kLines = 300;
  start({.most_waiting = 1000});
  const UniqueFd deaf = connect();
  std::string many;
  for (std::size_t i = 0; i < kLines; ++i) many += "repeat x\n";
  send(deaf, many);
  const UniqueFd other = connect();
  send(other, "hello\n");
  EXPECT_EQ(receive(other), "you said hello");
  EXPECT_LT(asked_, 100) << "the socket's own buffer and one answer more";
  // Whoever reads in the end gets everything.
  std::array<char, 65536> piece;
  std::size_t bytes = 0;
  for (ssize_t n = 1; n > 0 && bytes < kLines * 100'001; bytes += static_cast<std::size_t>(n)) {
    n = ::recv(deaf.get(), piece.data(), piece.size(), 0);
  }
  EXPECT_EQ(bytes, kLines * 100'001);
}

TEST_F(LineServerTest, ClientThatIsGone_doesNoHarm) {
  start();
  for (int i = 0; i < 50; ++i) send(connect(), "repeat y\nrepeat z\n");
  const UniqueFd client = connect();
  send(client, "hello\n");
  EXPECT_EQ(receive(client), "you said hello");
}

TEST_F(LineServerTest, OneClientTooMany_waitsForItsTurn) {
  start({.most_clients = 1});
  UniqueFd first = connect();
  send(first, "a\n");
  EXPECT_EQ(receive(first), "you said a");
  const UniqueFd second = connect();
  send(second, "b\n");
  first.reset();
  EXPECT_EQ(receive(second), "you said b");
}

TEST_F(LineServerTest, File_isOursAloneAndGoesAtTheEnd) {
  start();
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  const UniqueFd client = connect();
  server_.reset();
  EXPECT_NE(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(receive(client), " (end)");
  EXPECT_FALSE(ask_line(path_, "x", kPatience));
}

TEST_F(LineServerTest, SecondServer_isRefusedThePath) {
  start();
  const auto second = LineServer::create(path_, [](std::string_view) { return ""; }, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kBadConfig);
}

TEST_F(LineServerTest, Client_asksAndHears) {
  start();
  EXPECT_EQ(ask_line(path_, "hello", kPatience).value(), "you said hello");
  EXPECT_EQ(ask_line(path_, "repeat x", kPatience).value().size(), 100'000U);
}

TEST_F(LineServerTest, ClientThatIsNotAnswered_givesUp) {
  const auto silent = UnixListener::create(path_, 1);
  ASSERT_TRUE(silent);
  const auto answer = ask_line(path_, "hello", std::chrono::milliseconds(10));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), ErrorCode::kTimeout);
}

TEST_F(LineServerTest, ClientWithoutAServer_saysWhatIsMissing) {
  const auto missing = ask_line(path_, "hello", kPatience);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message(), "There is no socket " + path_);
  EXPECT_FALSE(ask_line(std::string(200, 'x'), "hello", kPatience));
}

}  // namespace
}  // namespace vmm

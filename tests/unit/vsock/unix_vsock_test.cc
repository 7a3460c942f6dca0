#include "vmm/vsock/unix_vsock.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "tests/support/scratch_directory.h"

namespace vmm::test {
namespace {

using Then = VsockBackend::Transfer::Then;
using Stream = VsockBackend::Stream;

UniqueFd connect_to(const std::string& path) {
  const sockaddr_un address = unix_address(path).value();
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fd.reset();
  }
  return fd;
}

void say(const UniqueFd& fd, std::string_view text) {
  ASSERT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

// What is there now; "" at the end, too.
std::string hear(const UniqueFd& fd) {
  std::array<char, 256> text;
  const ssize_t n = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
  return {text.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}
bool at_end(const UniqueFd& fd) {
  char byte = 0;
  const ssize_t n = ::recv(fd.get(), &byte, 1, MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno == ECONNRESET);  // with something that nobody read
}

class UnixVsockTest : public testing::Test {
 protected:
  UnixVsockTest() : vsock_(UnixVsock::create(path_).value()) {}

  bool is_ready() {
    pollfd ask{vsock_->ready_fd(), POLLIN, 0};
    return ::poll(&ask, 1, 0) == 1;
  }
  VsockBackend::Transfer send(Stream stream, std::string text) {
    const ::iovec piece{text.data(), text.size()};
    return vsock_->send(stream, std::span(&piece, 1));
  }
  VsockBackend::Transfer receive(Stream stream, std::string& text) {
    std::array<char, 256> bytes;
    const ::iovec piece{bytes.data(), bytes.size()};
    const auto got = vsock_->receive(stream, std::span(&piece, 1));
    text.assign(bytes.data(), got.bytes);
    return got;
  }
  // A program that asked for port 7 and was accepted.
  Stream accepted(const UniqueFd& program, std::string_view behind = "") {
    say(program, "CONNECT 7\n" + std::string(behind));
    const auto event = vsock_->next_event();
    EXPECT_TRUE(event && event->wanted_port == 7U);
    vsock_->accept(event->stream, 1025);
    return event->stream;
  }

  ScratchDirectory scratch_;
  std::string path_ = scratch_.file("v");
  std::shared_ptr<UnixVsock> vsock_;
};

TEST_F(UnixVsockTest, Program_saysWhereItWantsToGo) {
  const UniqueFd program = connect_to(path_);
  const Stream stream = accepted(program, "behind");
  EXPECT_EQ(hear(program), "OK 1025\n");
  std::string text;
  receive(stream, text);
  EXPECT_EQ(text, "behind") << "what follows the line is the guest's";
  EXPECT_EQ(send(stream, "answer").bytes, 6U);
  EXPECT_EQ(hear(program), "answer");
}

TEST_F(UnixVsockTest, Greeting_mayComeInPieces) {
  const UniqueFd program = connect_to(path_);
  EXPECT_FALSE(vsock_->next_event());
  for (const char* const piece : {"CON", "NECT ", "4294967294"}) {
    say(program, piece);
    EXPECT_FALSE(vsock_->next_event());
    EXPECT_FALSE(is_ready()) << "it is looked at once";
  }
  say(program, "\n");
  EXPECT_EQ(vsock_->next_event()->wanted_port, 4294967294U);
}

TEST_F(UnixVsockTest, OtherGreetings_areSentAway) {
  for (const char* const text :
       {"connexion 7\n", "CONNECT\n", "CONNECT x\n", "CONNECT 7 8\n", "CONNECT -1\n",
        "CONNECT 4294967296\n", "\n", "CONNECT 00000000000000000000000000000000007\n"}) {
    const UniqueFd program = connect_to(path_);
    say(program, text);
    EXPECT_FALSE(vsock_->next_event()) << text;
    EXPECT_NE(hear(program), "OK");
    EXPECT_EQ(::send(program.get(), "x", 1, MSG_NOSIGNAL), -1) << text;
  }
}

TEST_F(UnixVsockTest, ProgramThatLeavesInTheMiddle_isForgotten) {
  UniqueFd program = connect_to(path_);
  say(program, "CONN");
  ASSERT_EQ(::shutdown(program.get(), SHUT_WR), 0);
  EXPECT_FALSE(vsock_->next_event());
  EXPECT_TRUE(at_end(program));
}

TEST_F(UnixVsockTest, SilentPrograms_areBounded) {
  std::vector<UniqueFd> programs;
  for (std::size_t i = 0; i < UnixVsock::kMostGreeting + 5; ++i) {
    programs.push_back(connect_to(path_));
    EXPECT_FALSE(vsock_->next_event());
  }
  EXPECT_TRUE(at_end(programs[4]));
  EXPECT_FALSE(at_end(programs[5]));
}

TEST_F(UnixVsockTest, GuestsPort_isASocketBesideTheOther) {
  EXPECT_FALSE(vsock_->connect(52));
  const UnixListener server = UnixListener::create(path_ + "_52", 1).value();
  const auto stream = vsock_->connect(52);
  ASSERT_TRUE(stream);
  const UniqueFd program = server.accept();
  send(*stream, "from the guest");
  EXPECT_EQ(hear(program), "from the guest");
  (void)vsock_->next_event();
  EXPECT_FALSE(is_ready());
  say(program, "to the guest");
  EXPECT_TRUE(vsock_->next_event()->readable);
  std::string text;
  receive(*stream, text);
  EXPECT_EQ(text, "to the guest");
  EXPECT_EQ(receive(*stream, text).then, Then::kBlocked);
}

TEST_F(UnixVsockTest, SlowProgram_isHeardOfWhenItHasRoom) {
  const UniqueFd program = connect_to(path_);
  const Stream stream = accepted(program);
  while (vsock_->next_event()) {
  }
  std::size_t sent = 0;
  VsockBackend::Transfer transfer;
  while ((transfer = send(stream, std::string(4096, 'x'))).bytes != 0) sent += transfer.bytes;
  EXPECT_EQ(transfer.then, Then::kBlocked);
  EXPECT_FALSE(is_ready());
  std::size_t heard = 0;
  for (std::string text; heard < sent && !(text = hear(program)).empty();) heard += text.size();
  const auto event = vsock_->next_event();
  ASSERT_TRUE(event);
  EXPECT_TRUE(event->writable);
  EXPECT_FALSE(is_ready());
}

TEST_F(UnixVsockTest, HalfClose_isToldFromAnEnd) {
  UniqueFd program = connect_to(path_);
  const Stream stream = accepted(program);
  (void)hear(program);
  say(program, "last");
  ASSERT_EQ(::shutdown(program.get(), SHUT_WR), 0);
  std::string text;
  receive(stream, text);
  EXPECT_EQ(text, "last");
  auto end = receive(stream, text);
  EXPECT_EQ(end.then, Then::kEnded);
  EXPECT_FALSE(end.hung_up);
  while (vsock_->next_event()) {
  }
  program.reset();
  const auto event = vsock_->next_event();
  EXPECT_TRUE(event && event->hung_up);
  EXPECT_TRUE(receive(stream, text).hung_up);
  EXPECT_EQ(send(stream, "x").then, Then::kEnded);
}

TEST_F(UnixVsockTest, ProgramThatLeavesBytesUnread_hasBrokenTheConnection) {
  UniqueFd program = connect_to(path_);
  const Stream stream = accepted(program);
  program.reset();
  std::string text;
  EXPECT_EQ(receive(stream, text).then, Then::kFailed);
}

TEST_F(UnixVsockTest, GuestsHalfClose_isAnEndForTheProgram) {
  const UniqueFd program = connect_to(path_);
  const Stream stream = accepted(program);
  (void)hear(program);
  send(stream, "last");
  vsock_->end_sending(stream);
  EXPECT_EQ(hear(program), "last");
  EXPECT_TRUE(at_end(program));
  say(program, "answer");
  std::string text;
  receive(stream, text);
  EXPECT_EQ(text, "answer");
  vsock_->end_receiving(stream);
  EXPECT_EQ(::send(program.get(), "x", 1, MSG_NOSIGNAL), -1);
}

TEST_F(UnixVsockTest, StreamsNumbers_areUsedAgain) {
  const UniqueFd first = connect_to(path_);
  const Stream stream = accepted(first);
  vsock_->close(stream);
  (void)hear(first);
  EXPECT_TRUE(at_end(first));
  const UniqueFd second = connect_to(path_);
  EXPECT_EQ(accepted(second), stream);
}

TEST_F(UnixVsockTest, Streams_areBoundedAndOthersWait) {
  const UnixListener server = UnixListener::create(path_ + "_1", 400).value();
  std::vector<Stream> streams;
  while (const auto stream = vsock_->connect(1)) streams.push_back(*stream);
  EXPECT_EQ(streams.size(), UnixVsock::kMostStreams);
  while (vsock_->next_event()) {
  }
  const UniqueFd program = connect_to(path_);
  say(program, "CONNECT 7\n");
  EXPECT_FALSE(vsock_->next_event());
  EXPECT_FALSE(is_ready()) << "nobody turns in circles";
  vsock_->close(streams[0]);
  const auto event = vsock_->next_event();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->wanted_port, 7U);
}

TEST_F(UnixVsockTest, SocketInUse_isRefusedAndAStaleOneReplaced) {
  EXPECT_FALSE(UnixVsock::create(path_)) << "alive";
  vsock_.reset();
  EXPECT_FALSE(connect_to(path_)) << "removed at the end";
  {  // What a program leaves behind that was killed.
    const sockaddr_un address = unix_address(path_).value();
    const UniqueFd killed(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(killed.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  EXPECT_TRUE(UnixVsock::create(path_));
  write_file(path_, {});
  EXPECT_FALSE(UnixVsock::create(path_)) << "something else";
}

TEST(UnixVsock, LongPath_isRefusedForTheGuestsPorts) {
  EXPECT_TRUE(UnixVsock::create("/tmp/" + std::string(80, 'v')));
  EXPECT_FALSE(UnixVsock::create("/tmp/" + std::string(95, 'v')));
}

}  // namespace
}  // namespace vmm::test

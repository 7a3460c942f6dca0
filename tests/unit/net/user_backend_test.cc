#include "vmm/net/user_backend.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/unit/net/net_support.h"

namespace vmm {
namespace {

using test::Address;
using test::Frame;

constexpr unsigned kSyn = 2, kAck = 0x10;
const Address kGuest{.mac = {{2, 0, 0, 0, 0, 1}}, .ip = 0x0a00'020f, .port = 1000};

::sockaddr_in loopback(std::uint16_t port) {
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// A socket on a free port of the host's.
struct HostSocket {
  explicit HostSocket(int type) : fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0)) {
    ::sockaddr_in address = loopback(0);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<::sockaddr*>(&address), sizeof address), 0);
    ::socklen_t size = sizeof address;
    ::getsockname(fd.get(), reinterpret_cast<::sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
  }
  UniqueFd fd;
  std::uint16_t port = 0;
};

// A port that was free a moment ago.
std::uint16_t free_port(int type) { return HostSocket(type).port; }

class User : public testing::Test {
 protected:
  void start(const UserNetwork& network = {}) {
    auto made = UserBackend::create(network);
    if (!made && made.error().code() == ErrorCode::kUnsupported) {
      GTEST_SKIP() << made.error().message();
    }
    ASSERT_TRUE(made) << made.error().message();
    backend_ = *std::move(made);
  }
  // The gateway's address, with which everything begins; the guest's becomes known by it, too.
  void meet_gateway() {
    ASSERT_TRUE(test::send(*backend_, test::arp(kGuest, 1, {}, kGateway)));
    const auto answer =
        test::await_frame(*backend_, [](const Frame& f) { return test::is_type(f, 0x0806); });
    ASSERT_TRUE(answer);
    EXPECT_EQ(test::get32(*answer, 28), kGateway);
    std::copy_n(answer->begin() + 22, 6, reinterpret_cast<std::byte*>(host_.mac.bytes.data()));
    host_.ip = kGateway;
  }

  static constexpr std::uint32_t kGateway = 0x0a00'0202;
  std::unique_ptr<UserBackend> backend_;
  Address host_;
};

TEST_F(User, Gateway_answersArp) {
  start();
  if (!backend_) return;
  meet_gateway();
  EXPECT_FALSE(host_.mac.is_zero());
}

TEST_F(User, Dhcp_offersTheFirstAddress) {
  start();
  if (!backend_) return;
  Frame request;
  test::append(request, {1, 1, 6, 0});  // BOOTREQUEST, Ethernet
  test::append32(request, 0x1234'5678);
  request.resize(28);
  for (const std::uint8_t byte : kGuest.mac.bytes) test::append(request, {byte});
  request.resize(236);
  test::append32(request, 0x6382'5363);
  test::append(request, {53, 1, 1, 255});  // DHCPDISCOVER
  request.resize(300);
  const Address nobody{.mac = kGuest.mac, .ip = 0, .port = 68};
  const Address everybody{.mac = test::kBroadcast, .ip = 0xffff'ffff, .port = 67};
  ASSERT_TRUE(test::send(*backend_, test::udp(nobody, everybody, request)));
  const auto offer = test::await_frame(
      *backend_, [](const Frame& f) { return test::is_ipv4(f, 17) && test::get16(f, 36) == 68; });
  ASSERT_TRUE(offer);
  EXPECT_EQ(test::get32(*offer, 42 + 16), 0x0a00'020fU);  // yiaddr
}

TEST_F(User, Datagram_reachesTheHostAndItsAnswerTheGuest) {
  start();
  if (!backend_) return;
  meet_gateway();
  const HostSocket server(SOCK_DGRAM);
  host_.port = server.port;
  ASSERT_TRUE(test::send(*backend_, test::udp(kGuest, host_, "hello host")));
  char text[64];
  ::sockaddr_in peer{};
  ::socklen_t size = sizeof peer;
  const ssize_t n = ::recvfrom(server.fd.get(), text, sizeof text, 0,
                               reinterpret_cast<::sockaddr*>(&peer), &size);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string_view(text, static_cast<std::size_t>(n)), "hello host");
  ::sendto(server.fd.get(), "hello guest", 11, 0, reinterpret_cast<::sockaddr*>(&peer), size);
  const auto answer =
      test::await_frame(*backend_, [](const Frame& f) { return test::is_ipv4(f, 17); });
  ASSERT_TRUE(answer);
  EXPECT_EQ(test::udp_text(*answer), "hello guest");
}

TEST_F(User, ForwardedPort_connectsToTheGuest) {
  const std::uint16_t port = free_port(SOCK_STREAM);
  start({.forwards = {{.host = {0x7f00'0001, port}, .guest = {0, 22}}}});
  if (!backend_) return;
  meet_gateway();
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const ::sockaddr_in address = loopback(port);
  (void)::connect(client.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address);
  const auto syn = test::await_frame(*backend_, [](const Frame& f) { return test::is_ipv4(f, 6); });
  ASSERT_TRUE(syn);
  EXPECT_EQ(test::get32(*syn, 30), kGuest.ip);
  EXPECT_EQ(test::get16(*syn, 36), 22U);
  EXPECT_EQ(std::to_integer<unsigned>((*syn)[47]) & (kSyn | kAck), kSyn);
}

TEST_F(User, SeveralForwards_areServed) {
  const std::uint16_t tcp = free_port(SOCK_STREAM), udp = free_port(SOCK_DGRAM);
  start({.forwards = {{.host = {0x7f00'0001, tcp}, .guest = {0, 22}},
                      {.udp = true, .host = {0x7f00'0001, udp}, .guest = {0, 53}}}});
  if (!backend_) return;
  meet_gateway();
  const UniqueFd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const ::sockaddr_in address = loopback(udp);
  ASSERT_EQ(::sendto(client.get(), "knock", 5, 0, reinterpret_cast<const ::sockaddr*>(&address),
                     sizeof address),
            5);
  const auto knock =
      test::await_frame(*backend_, [](const Frame& f) { return test::is_ipv4(f, 17); });
  ASSERT_TRUE(knock);
  EXPECT_EQ(test::udp_text(*knock), "knock");
  EXPECT_EQ(test::get16(*knock, 36), 53U);
}

TEST_F(User, TakenPort_isAnError) {
  const HostSocket other(SOCK_STREAM);
  ASSERT_EQ(::listen(other.fd.get(), 1), 0);
  const auto made = UserBackend::create({.forwards = {{.host = {0x7f00'0001, other.port}}}});
  if (!made && made.error().code() == ErrorCode::kUnsupported) GTEST_SKIP();
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find(std::to_string(other.port)), std::string::npos);
}

TEST_F(User, UnwantedFrames_waitOnTheHost) {
  const std::uint16_t port = free_port(SOCK_DGRAM);
  start({.forwards = {{.udp = true, .host = {0x7f00'0001, port}, .guest = {0, 53}}}});
  if (!backend_) return;
  meet_gateway();
  backend_->want_frames(false);
  const UniqueFd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const ::sockaddr_in address = loopback(port);
  ::sendto(client.get(), "knock", 5, 0, reinterpret_cast<const ::sockaddr*>(&address),
           sizeof address);
  EXPECT_FALSE(test::is_ready(*backend_, 50));
  backend_->want_frames(true);
  EXPECT_TRUE(test::await_frame(*backend_, [](const Frame& f) { return test::is_ipv4(f, 17); }));
}

TEST_F(User, IdleNetwork_wakesNobody) {
  start();
  if (!backend_) return;
  NetHeader header;
  EXPECT_FALSE(test::receive(*backend_, header));
  EXPECT_FALSE(test::is_ready(*backend_, 1500));
}

TEST_F(User, FloodOfNewFlows_isBounded) {
  start();
  if (!backend_) return;
  meet_gateway();
  const HostSocket server(SOCK_DGRAM);
  host_.port = server.port;
  Address guest = kGuest;
  for (int i = 0; i < 2000; ++i) {
    ++guest.port;
    (void)test::send(*backend_, test::udp(guest, host_, "x"));
  }
  EXPECT_GE(backend_->dropped(), 2000U - 512);
  // What was there before goes on.
  ASSERT_TRUE(test::send(*backend_, test::arp(kGuest, 1, {}, kGateway)));
  EXPECT_TRUE(
      test::await_frame(*backend_, [](const Frame& f) { return test::is_type(f, 0x0806); }));
}

TEST_F(User, OversizedFrame_isDropped) {
  start();
  if (!backend_) return;
  EXPECT_FALSE(test::send(*backend_, Frame(NetBackend::kMostFrame)));
  EXPECT_TRUE(test::send(*backend_, Frame(1)));
}

TEST_F(User, Restricted_leadsNowhere) {
  start({.restricted = true});
  if (!backend_) return;
  meet_gateway();
  const HostSocket server(SOCK_DGRAM);
  host_.port = server.port;
  ASSERT_TRUE(test::send(*backend_, test::udp(kGuest, host_, "let me out")));
  char byte = 0;
  EXPECT_EQ(::recv(server.fd.get(), &byte, 1, MSG_DONTWAIT), -1);
}

}  // namespace
}  // namespace vmm

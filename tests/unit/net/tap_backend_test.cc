#include "vmm/net/tap_backend.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "tests/unit/net/net_support.h"

namespace vmm {
namespace {

using test::Address;
using test::Frame;

constexpr std::uint32_t kHostIp = 0x0a63'0001, kGuestIp = 0x0a63'0002;  // 10.99.0.1 and .2
const MacAddress kGuestMac{{2, 0, 0, 0, 0, 1}};

::ifreq request(const char* name) {
  ::ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

void set_address(::ifreq& request, std::uint32_t address) {
  ::sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  std::memcpy(&request.ifr_addr, &in, sizeof in);
}

void write_file(const char* path, const std::string& text) { std::ofstream(path) << text; }

// A network namespace of this process's own, in which it may do what it likes. Why not, or nothing.
std::string enter_namespace() {
  const uid_t user = ::geteuid();
  if (::unshare(user == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    return std::string("a network namespace is not to be had: ") + std::strerror(errno);
  }
  if (user != 0) {
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
  }
  return {};
}

// The host's end of 10.99.0.0/24 in a namespace; the test plays the guest at .2.
class Tap : public testing::Test {
 protected:
  static void SetUpTestSuite() { why_not_ = enter_namespace(); }

  void SetUp() override {
    if (!why_not_.empty()) GTEST_SKIP() << why_not_;
    tun_ = UniqueFd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tun_) GTEST_SKIP() << "/dev/net/tun cannot be opened: " << std::strerror(errno);
    ::ifreq tap = request("vmmtap0");
    tap.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(tun_.get(), TUNSETIFF, &tap) != 0) {
      GTEST_SKIP() << "no tap device can be made: " << std::strerror(errno);
    }
    ASSERT_EQ(::ioctl(tun_.get(), TUNSETPERSIST, 1), 0);
    control_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    set_address(tap, kHostIp);
    ASSERT_EQ(::ioctl(control_.get(), SIOCSIFADDR, &tap), 0);
    set_address(tap, 0xffff'ff00);
    ASSERT_EQ(::ioctl(control_.get(), SIOCSIFNETMASK, &tap), 0);
    tap.ifr_flags = IFF_UP;
    ASSERT_EQ(::ioctl(control_.get(), SIOCSIFFLAGS, &tap), 0);
    ASSERT_EQ(::ioctl(control_.get(), SIOCGIFHWADDR, &tap), 0);
    std::memcpy(host_.mac.bytes.data(), tap.ifr_hwaddr.sa_data, 6);
    tun_.reset();  // the device stays, for whoever opens it next
  }
  void TearDown() override { remove(); }

  void remove() {
    tun_ = UniqueFd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ::ifreq tap = request("vmmtap0");
    tap.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (tun_ && ::ioctl(tun_.get(), TUNSETIFF, &tap) == 0) {
      (void)::ioctl(tun_.get(), TUNSETPERSIST, 0);
    }
    tun_.reset();
  }

  std::unique_ptr<TapBackend> open() {
    auto tap = TapBackend::open("vmmtap0");
    EXPECT_TRUE(tap) << tap.error().message();
    return tap ? *std::move(tap) : nullptr;
  }

  // A socket of the host's that has sent nothing yet.
  UniqueFd host_socket(int type, std::uint16_t port) {
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    const ::sockaddr_in at = address(kHostIp, port);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const ::sockaddr*>(&at), sizeof at), 0);
    const ::timeval patience{.tv_sec = 30, .tv_usec = 0};  // what is lost is a failure, no hang
    EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
  }
  static ::sockaddr_in address(std::uint32_t ip, std::uint16_t port) {
    ::sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(ip);
    in.sin_port = htons(port);
    return in;
  }
  void send_to_guest(int fd, std::size_t size) {
    const std::string text(size, 'x');
    const ::sockaddr_in to = address(kGuestIp, 7);
    EXPECT_EQ(
        ::sendto(fd, text.data(), size, 0, reinterpret_cast<const ::sockaddr*>(&to), sizeof to),
        static_cast<ssize_t>(size));
  }
  // The host learns where the guest is before it asks. It throws its answers away until it has
  // seen, some time after the device was opened, that the link is up: so the guest asks again.
  void introduce_guest(TapBackend& tap) {
    const auto is_answer = [](const Frame& f) {
      return test::is_type(f, 0x0806) && test::get16(f, 20) == 2;
    };
    for (int round = 0; round < 100; ++round) {
      ASSERT_TRUE(test::send(tap, test::arp(guest_, 1, {}, kHostIp)));
      if (test::await_frame(tap, is_answer, nullptr, std::chrono::milliseconds(200))) return;
    }
    FAIL() << "the host answers no ARP request";
  }

  inline static std::string why_not_;
  UniqueFd tun_, control_;
  Address host_{.mac = {}, .ip = kHostIp, .port = 7};
  Address guest_{.mac = kGuestMac, .ip = kGuestIp, .port = 7};
};

TEST_F(Tap, Frames_goBothWays) {
  const auto tap = open();
  ASSERT_NO_FATAL_FAILURE(introduce_guest(*tap));
  const UniqueFd server = host_socket(SOCK_DGRAM, 7);
  ASSERT_TRUE(test::send(*tap, test::udp(guest_, host_, "from the guest")));
  char text[64];
  const ssize_t n = ::recv(server.get(), text, sizeof text, 0);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string_view(text, static_cast<std::size_t>(n)), "from the guest");
  send_to_guest(server.get(), 20);
  const auto frame = test::await_frame(*tap, [](const Frame& f) { return test::is_ipv4(f, 17); });
  ASSERT_TRUE(frame);
  EXPECT_EQ(test::udp_text(*frame), std::string(20, 'x'));
}

TEST_F(Tap, Checksum_isLeftUndoneOnlyWhenAllowed) {
  const auto tap = open();
  ASSERT_NO_FATAL_FAILURE(introduce_guest(*tap));
  ASSERT_TRUE(tap->to_guest().checksum);
  const UniqueFd server = host_socket(SOCK_DGRAM, 7);
  const auto is_udp = [](const Frame& f) { return test::is_ipv4(f, 17); };
  NetHeader header;
  send_to_guest(server.get(), 20);
  ASSERT_TRUE(test::await_frame(*tap, is_udp, &header));
  EXPECT_EQ(header.flags & NetHeader::kNeedsChecksum, 0);
  tap->allow_to_guest({.checksum = true});
  send_to_guest(server.get(), 20);
  ASSERT_TRUE(test::await_frame(*tap, is_udp, &header));
  EXPECT_EQ(header.flags & NetHeader::kNeedsChecksum, NetHeader::kNeedsChecksum);
  EXPECT_EQ(header.checksum_start, 34);
  EXPECT_EQ(header.checksum_offset, 6);
}

TEST_F(Tap, ChecksumOfTheGuest_isCompleted) {
  const auto tap = open();
  ASSERT_NO_FATAL_FAILURE(introduce_guest(*tap));
  const UniqueFd server = host_socket(SOCK_DGRAM, 7);
  Frame frame = test::udp(guest_, host_, "no sum yet");
  // The pseudo header's sum stands where the whole is to be.
  Frame pseudo;
  test::append32(pseudo, kGuestIp);
  test::append32(pseudo, kHostIp);
  test::append16(pseudo, 17);
  test::append16(pseudo, static_cast<unsigned>(frame.size() - 34));
  const unsigned sum = test::internet_sum(pseudo);
  frame[40] = static_cast<std::byte>(sum >> 8);
  frame[41] = static_cast<std::byte>(sum & 0xff);
  NetHeader header;
  header.flags = NetHeader::kNeedsChecksum;
  header.checksum_start = 34;
  header.checksum_offset = 6;
  ASSERT_TRUE(test::send(*tap, frame, header));
  char text[64];
  EXPECT_EQ(::recv(server.get(), text, sizeof text, 0), 10);
}

TEST_F(Tap, LargeSegments_comeWholeWhenAllowed) {
  const auto tap = open();
  ASSERT_NO_FATAL_FAILURE(introduce_guest(*tap));
  tap->allow_to_guest({.checksum = true, .tso4 = true});
  // The guest's side of a connection, by hand: SYN, then an ACK that opens a large window.
  const UniqueFd listener = host_socket(SOCK_STREAM, 9);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  Address server = host_;
  server.port = 9;
  ASSERT_TRUE(test::send(*tap, test::tcp(guest_, server, 2, 100)));
  const auto is_tcp = [](const Frame& f) { return test::is_ipv4(f, 6); };
  const auto answer = test::await_frame(*tap, is_tcp);
  ASSERT_TRUE(answer);
  const std::uint32_t theirs = test::get32(*answer, 38) + 1;
  ASSERT_TRUE(test::send(*tap, test::tcp(guest_, server, 0x10, 101, theirs)));
  const UniqueFd connection(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(connection);
  const std::string data(60'000, 'd');
  ASSERT_EQ(::send(connection.get(), data.data(), data.size(), MSG_DONTWAIT), 60'000);
  NetHeader header;
  const auto large = test::await_frame(
      *tap, [](const Frame& f) { return test::is_ipv4(f, 6) && f.size() > 1514; }, &header);
  ASSERT_TRUE(large);
  EXPECT_EQ(header.gso_type & ~NetHeader::kGsoEcn, NetHeader::kGsoTcp4);
  EXPECT_GT(header.gso_size, 0);
}

TEST_F(Tap, UnwantedFrames_wakeNobody) {
  const auto tap = open();
  ASSERT_NO_FATAL_FAILURE(introduce_guest(*tap));
  const UniqueFd server = host_socket(SOCK_DGRAM, 7);
  tap->want_frames(false);
  send_to_guest(server.get(), 20);
  EXPECT_FALSE(test::is_ready(*tap));
  tap->want_frames(true);
  EXPECT_TRUE(test::is_ready(*tap, 1000));
}

TEST_F(Tap, Mtu_isTheInterfaces) {
  ::ifreq tap = request("vmmtap0");
  tap.ifr_mtu = 1400;
  ASSERT_EQ(::ioctl(control_.get(), SIOCSIFMTU, &tap), 0);
  EXPECT_EQ(open()->mtu(), 1400);
}

TEST_F(Tap, Descriptor_isAdopted) {
  tun_ = UniqueFd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ::ifreq tap = request("vmmtap0");
  tap.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  ASSERT_EQ(::ioctl(tun_.get(), TUNSETIFF, &tap), 0);
  auto adopted = TapBackend::adopt(tun_.get());
  ASSERT_TRUE(adopted) << adopted.error().message();
  EXPECT_EQ((*adopted)->name(), "vmmtap0");
  ASSERT_NO_FATAL_FAILURE(introduce_guest(**adopted));
}

TEST_F(Tap, DeviceInUse_isNamed) {
  const auto first = open();
  const auto second = TapBackend::open("vmmtap0");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kResource);
  EXPECT_NE(second.error().message().find("vmmtap0"), std::string::npos);
}

TEST_F(Tap, DeletedDevice_isALinkThatIsDown) {
  const auto tap = open();
  if (std::system("ip link delete vmmtap0") != 0) GTEST_SKIP() << "there is no ip command";
  NetHeader header;
  EXPECT_FALSE(test::receive(*tap, header));
  EXPECT_FALSE(tap->link_up());
  EXPECT_FALSE(test::is_ready(*tap));
  EXPECT_FALSE(test::send(*tap, Frame(60)));
}

TEST_F(Tap, DeviceWithOneQueue_hasNoMore) {
  const auto queues = TapBackend::open_queues("vmmtap0", 2);
  ASSERT_FALSE(queues);
  EXPECT_EQ(queues.error().code(), ErrorCode::kBadConfig);
  EXPECT_NE(queues.error().message().find("multi_queue"), std::string::npos);
}

TEST_F(Tap, SeveralQueues_takePartWhenEnabled) {
  const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ::ifreq tap = request("vmmtap1");
  tap.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  ASSERT_EQ(::ioctl(tun.get(), TUNSETIFF, &tap), 0);  // goes with its last descriptor
  auto queues = TapBackend::open_queues("vmmtap1", 3);
  ASSERT_TRUE(queues) << queues.error().message();
  ASSERT_EQ(queues->size(), 3U);
  tap = request("vmmtap1");
  tap.ifr_flags = IFF_UP;
  ASSERT_EQ(::ioctl(control_.get(), SIOCSIFFLAGS, &tap), 0);
  TapBackend& last = *queues->back();
  EXPECT_TRUE(test::send(last, Frame(60)));
  last.set_enabled(false);
  last.want_frames(true);
  EXPECT_FALSE(test::is_ready(last)) << "a detached queue has nothing to say";
  EXPECT_FALSE(test::send(last, Frame(60)));
  NetHeader header;
  EXPECT_FALSE(test::receive(last, header));
  EXPECT_TRUE(last.link_up()) << "it is only off";
  last.set_enabled(true);
  EXPECT_TRUE(test::send(last, Frame(60)));
}

TEST(TapBackend, MissingDevice_isNotMade) {
  const auto tap = TapBackend::open("vmmnone0");
  ASSERT_FALSE(tap);
  EXPECT_EQ(tap.error().code(), ErrorCode::kBadConfig);
  EXPECT_NE(tap.error().message().find("ip tuntap add"), std::string::npos);
}

TEST(TapBackend, OverlongName_isRefused) {
  EXPECT_FALSE(TapBackend::open("a-name-of-16-chr"));
  EXPECT_FALSE(TapBackend::open(""));
}

TEST(TapBackend, OtherDescriptor_isRefused) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto tap = TapBackend::adopt(null.get());
  ASSERT_FALSE(tap);
  EXPECT_EQ(tap.error().code(), ErrorCode::kBadConfig);
  EXPECT_FALSE(TapBackend::adopt(-1));
}

}  // namespace
}  // namespace vmm

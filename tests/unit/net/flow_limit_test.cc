#include "vmm/net/flow_limit.h"

#include <gtest/gtest.h>

#include "tests/support/frames.h"

namespace vmm {
namespace {

using namespace std::chrono_literals;
using test::Address;
using test::Frame;

constexpr std::size_t kMost = 4;
constexpr unsigned kSyn = 2, kAck = 0x10;
const Address kGuest{.mac = {{2, 0, 0, 0, 0, 1}}, .ip = 0x0a00'020f, .port = 1000};
const Address kHost{.mac = {{2, 0, 0, 0, 0, 2}}, .ip = 0x0a00'0202, .port = 80};

bool admitted(const Frame& frame, std::size_t flows) {
  return FlowLimit(kMost).admit(frame, flows, 0s);
}

TEST(FlowLimit, NewFlows_passBelowTheLimit) {
  EXPECT_TRUE(admitted(test::tcp(kGuest, kHost, kSyn), kMost - 1));
  EXPECT_TRUE(admitted(test::udp(kGuest, kHost, "x"), kMost - 1));
}

TEST(FlowLimit, NewFlows_areLostAtTheLimit) {
  EXPECT_FALSE(admitted(test::tcp(kGuest, kHost, kSyn), kMost));
  EXPECT_FALSE(admitted(test::udp(kGuest, kHost, "x"), kMost));
  EXPECT_FALSE(admitted(test::ipv4(kGuest, kHost, 1, Frame(8)), kMost));
}

TEST(FlowLimit, OpenConnections_goOnAtTheLimit) {
  EXPECT_TRUE(admitted(test::tcp(kGuest, kHost, kAck), kMost));
  EXPECT_TRUE(admitted(test::tcp(kGuest, kHost, kSyn | kAck), kMost));
}

TEST(FlowLimit, Neighbours_areFoundAtTheLimit) {
  EXPECT_TRUE(admitted(test::arp(kGuest, 1, {}, kHost.ip), kMost));
  Frame packet(40);
  packet[6] = std::byte{58};
  test::append(packet, {135, 0, 0, 0});  // neighbour solicitation
  EXPECT_TRUE(admitted(test::ethernet(kHost.mac, kGuest.mac, 0x86dd, packet), kMost));
}

TEST(FlowLimit, Fragments_haveALimitThatTimeRenews) {
  FlowLimit limit(kMost);
  const Frame piece = test::ipv4(kGuest, kHost, 17, Frame(64), 0x2000);
  std::size_t passed = 0;
  while (limit.admit(piece, 0, 1s) && passed <= FlowLimit::kMostFragments) ++passed;
  EXPECT_EQ(passed, FlowLimit::kMostFragments);
  EXPECT_FALSE(limit.admit(piece, 0, FlowLimit::kWindow - 1ms));
  EXPECT_TRUE(limit.admit(piece, 0, FlowLimit::kWindow + 1s));
}

TEST(FlowLimit, ShortFrames_areJudgedWithoutLookingBehindTheirEnd) {
  const Frame whole = test::tcp(kGuest, kHost, kSyn);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    (void)admitted(Frame(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)), kMost);
  }
  EXPECT_TRUE(admitted({}, kMost));
}

}  // namespace
}  // namespace vmm

#include "vmm/net/faulty_network.h"

#include <gtest/gtest.h>

#include <string>

#include "base/event_fd.h"
#include "tests/unit/net/net_support.h"
#include "vmm/net/frame_pieces.h"

namespace vmm::test {
namespace {

using Direction = NetFault::Direction;
using Kind = NetFault::Kind;

// Keeps what it is sent, as text, and gives what it was told to.
class Wire final : public NetBackend {
 public:
  bool send(const NetHeader&, std::span<const ::iovec> frame) override {
    for (const ::iovec& piece : frame) {
      sent.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    }
    sent += ' ';
    return true;
  }
  std::optional<std::size_t> receive(NetHeader&, std::span<const ::iovec> into) override {
    if (next == incoming.size()) return std::nullopt;
    return scatter(std::as_bytes(std::span(&incoming[next++], 1)), into);
  }
  int ready_fd() const noexcept override { return event_.fd(); }
  void want_frames(bool) override {}

  std::string sent, incoming;
  std::size_t next = 0;

 private:
  EventFd event_ = EventFd::create().value();
};

class FaultyNetworkTest : public testing::Test {
 protected:
  // One frame a letter; what arrives at the other end.
  std::string to_host(const std::string& letters) {
    for (const char letter : letters) send(network_, std::as_bytes(std::span(&letter, 1)));
    return std::exchange(wire_->sent, {});
  }
  std::string to_guest(const std::string& letters) {
    wire_->incoming += letters;
    std::string arrived;
    NetHeader header;
    while (const auto frame = receive(network_, header)) {
      arrived += static_cast<char>((*frame)[0]);
    }
    return arrived;
  }

  std::shared_ptr<Wire> wire_ = std::make_shared<Wire>();
  FaultyNetwork network_{wire_};
};

TEST_F(FaultyNetworkTest, WithoutFaults_isTheNetworkBehindIt) {
  EXPECT_EQ(to_host("abc"), "a b c ");
  EXPECT_EQ(to_guest("abc"), "abc");
  EXPECT_EQ(network_.hits(), 0U);
}

TEST_F(FaultyNetworkTest, NthFrameOfADirection_isLost) {
  network_.add({.nth = 2, .count = 2});
  network_.add({.direction = Direction::kToGuest, .nth = 1});
  EXPECT_EQ(to_host("abcd"), "a d ");
  EXPECT_EQ(to_guest("abcd"), "bcd");
  EXPECT_EQ(network_.hits(), 3U);
}

TEST_F(FaultyNetworkTest, Duplicate_comesTwice) {
  network_.add({.kind = Kind::kDuplicate, .nth = 2});
  network_.add({.direction = Direction::kToGuest, .kind = Kind::kDuplicate, .nth = 2});
  EXPECT_EQ(to_host("abc"), "a b b c ");
  EXPECT_EQ(to_guest("abc"), "abbc");
}

TEST_F(FaultyNetworkTest, Reordered_comesBehindOthers) {
  network_.add({.kind = Kind::kReorder, .nth = 1, .behind = 2});
  network_.add({.direction = Direction::kToGuest, .kind = Kind::kReorder, .nth = 2});
  EXPECT_EQ(to_host("abcd"), "b c a d ");
  EXPECT_EQ(to_guest("abcd"), "acbd");
}

TEST_F(FaultyNetworkTest, Reordered_withNothingBehindItWaits) {
  network_.add({.direction = Direction::kToGuest, .kind = Kind::kReorder});
  EXPECT_EQ(to_guest("a"), "");
  EXPECT_FALSE(network_.has_frame());
  EXPECT_EQ(to_guest("b"), "ba");
}

TEST_F(FaultyNetworkTest, HeldFrames_areBounded) {
  network_.add({.kind = Kind::kReorder, .count = NetFault::kForever, .behind = 1000});
  const std::string many(FaultyNetwork::kMostHeld + 2, 'x');
  EXPECT_EQ(to_host(many), "x x ");
}

TEST_F(FaultyNetworkTest, Chances_areThoseOfTheSeed) {
  const std::vector<NetFault> faults{{.count = NetFault::kForever, .chance = 0.5}};
  const std::string many(200, 'x');
  const auto left = [&](std::uint64_t seed) {
    FaultyNetwork network(wire_, faults, seed);
    std::string pattern;
    for (const char letter : many) {
      send(network, std::as_bytes(std::span(&letter, 1)));
      pattern += std::exchange(wire_->sent, {}).empty() ? '.' : 'x';
    }
    return pattern;
  };
  EXPECT_EQ(left(1), left(1));
  EXPECT_NE(left(1), left(2));
  EXPECT_NE(left(1).find('.'), std::string::npos);
  EXPECT_NE(left(1).find('x'), std::string::npos);
}

}  // namespace
}  // namespace vmm::test

#include "vmm/vhost/peer_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace vmm::vhost {
namespace {

// A ring in plain memory, and the back-end's half by hand.
class PeerRingTest : public testing::Test {
 protected:
  template <typename T>
  T get(std::size_t at) const {
    T value;
    std::memcpy(&value, memory_.data() + at, sizeof value);
    return value;
  }
  template <typename T>
  void put(std::size_t at, T value) {
    std::memcpy(memory_.data() + at, &value, sizeof value);
  }
  void answer(std::uint32_t id, std::uint32_t written) {
    const std::size_t place = PeerRing::kUsed + 4 + 8 * (answered_ % PeerRing::kSize);
    put<std::uint32_t>(place, id);
    put<std::uint32_t>(place + 4, written);
    put<std::uint16_t>(PeerRing::kUsed + 2, ++answered_);
  }
  static virtio::Chain chain(std::size_t segments, std::uint16_t readable = 1) {
    virtio::Chain chain;
    chain.readable = readable;
    for (std::size_t i = 0; i < segments; ++i) chain.segments.push_back({0x1000 * (i + 1), 16});
    return chain;
  }

  alignas(4096) std::array<std::byte, PeerRing::kBytes> memory_{};
  PeerRing ring_{memory_.data()};
  std::uint16_t answered_ = 0;
};

TEST_F(PeerRingTest, Request_isADescriptorChain) {
  const std::uint16_t head = ring_.submit(chain(3)).value();
  EXPECT_EQ(get<std::uint16_t>(PeerRing::kAvailable + 2), 1);
  EXPECT_EQ(get<std::uint16_t>(PeerRing::kAvailable + 4), head);
  std::size_t at = 16U * head;
  EXPECT_EQ(get<std::uint64_t>(at), 0x1000U);
  EXPECT_EQ(get<std::uint32_t>(at + 8), 16U);
  EXPECT_EQ(get<std::uint16_t>(at + 12), 1) << "readable, and there is another";
  at = 16U * get<std::uint16_t>(at + 14);
  EXPECT_EQ(get<std::uint16_t>(at + 12), 3) << "writable, and there is another";
  at = 16U * get<std::uint16_t>(at + 14);
  EXPECT_EQ(get<std::uint16_t>(at + 12), 2);
}

TEST_F(PeerRingTest, Answer_isTakenOnce) {
  const std::uint16_t head = ring_.submit(chain(2)).value();
  EXPECT_FALSE(ring_.next_done().value());
  answer(head, 7);
  const auto done = ring_.next_done().value();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->slot, head);
  EXPECT_EQ(done->written, 7U);
  EXPECT_FALSE(ring_.next_done().value());
}

TEST_F(PeerRingTest, FullRing_takesMoreAfterAnswers) {
  std::vector<std::uint16_t> heads;
  while (const auto head = ring_.submit(chain(256))) heads.push_back(*head);
  EXPECT_EQ(heads.size(), PeerRing::kSize / 256U);
  EXPECT_FALSE(ring_.submit(chain(1)));
  answer(heads[2], 0);
  ASSERT_TRUE(ring_.next_done().value());
  EXPECT_TRUE(ring_.submit(chain(256)));
  EXPECT_FALSE(ring_.submit(chain(1)));
}

TEST_F(PeerRingTest, ManyRounds_wrapAround) {
  for (int i = 0; i < 70'000; ++i) {
    const auto head = ring_.submit(chain(3));
    ASSERT_TRUE(head);
    answer(*head, 1);
    ASSERT_TRUE(ring_.next_done().value());
  }
  EXPECT_EQ(ring_.under_way(), 0);
}

TEST_F(PeerRingTest, AnswersOutOfOrder_areTaken) {
  const std::uint16_t first = ring_.submit(chain(2)).value();
  const std::uint16_t second = ring_.submit(chain(2)).value();
  answer(second, 0);
  answer(first, 0);
  EXPECT_EQ(ring_.next_done().value()->slot, second);
  EXPECT_EQ(ring_.next_done().value()->slot, first);
}

TEST_F(PeerRingTest, BackEndThatLooksAnyway_isNotKicked) {
  EXPECT_TRUE(ring_.wants_kick());
  put<std::uint16_t>(PeerRing::kUsed, 1);
  EXPECT_FALSE(ring_.wants_kick());
}

TEST_F(PeerRingTest, MoreAnswersThanRequests_areALie) {
  const std::uint16_t head = ring_.submit(chain(1)).value();
  answer(head, 0);
  answer(head, 0);
  EXPECT_FALSE(ring_.next_done());
}

TEST_F(PeerRingTest, AnswerToNoRequest_isALie) {
  const std::uint16_t head = ring_.submit(chain(2)).value();
  const auto inner = get<std::uint16_t>(16U * head + 14);
  answer(inner, 0);  // in use, but not where a request begins
  EXPECT_FALSE(ring_.next_done());
}

TEST_F(PeerRingTest, AnswerBeyondTheRing_isALie) {
  ASSERT_TRUE(ring_.submit(chain(1)));
  answer(0xffff'0000, 0);
  EXPECT_FALSE(ring_.next_done());
}

TEST_F(PeerRingTest, SecondAnswerToARequest_isALie) {
  const std::uint16_t first = ring_.submit(chain(1)).value();
  ASSERT_TRUE(ring_.submit(chain(1)));
  answer(first, 0);
  ASSERT_TRUE(ring_.next_done().value());
  answer(first, 0);
  EXPECT_FALSE(ring_.next_done());
}

TEST_F(PeerRingTest, DescriptorsThatTheBackEndChanges_doNotMatter) {
  const std::uint16_t head = ring_.submit(chain(3)).value();
  for (std::size_t at = 0; at < PeerRing::kAvailable; ++at) put<std::uint8_t>(at, 0xff);
  answer(head, 0);
  ASSERT_TRUE(ring_.next_done().value());
  for (int i = 0; i < PeerRing::kSize; ++i) EXPECT_TRUE(ring_.submit(chain(1)));
  EXPECT_FALSE(ring_.submit(chain(1))) << "as many as there are, and no more";
}

TEST_F(PeerRingTest, Reset_forgetsEverything) {
  ASSERT_TRUE(ring_.submit(chain(3)));
  ring_.reset();
  EXPECT_EQ(ring_.under_way(), 0);
  EXPECT_EQ(get<std::uint16_t>(PeerRing::kAvailable + 2), 0);
  EXPECT_TRUE(ring_.submit(chain(PeerRing::kSize)));
}

}  // namespace
}  // namespace vmm::vhost

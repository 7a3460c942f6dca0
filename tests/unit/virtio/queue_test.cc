#include "devices/virtio/queue.h"

#include "tests/support/virtio/ring_under_test.h"

namespace vmm::test {
namespace {

using virtio::Chain;
using virtio::ChainReader;
using virtio::ChainWriter;

template <typename Ring>
class QueueOf : public testing::Test, public Ring {};
using Formats = testing::Types<RingUnderTest<SplitDriver>, RingUnderTest<PackedDriver>>;
TYPED_TEST_SUITE(QueueOf, Formats);

TYPED_TEST(QueueOf, EmptyRing_givesNothing) {
  EXPECT_FALSE(this->queue.pop(this->chain));
  EXPECT_TRUE(this->broken.empty());
}

TYPED_TEST(QueueOf, Chain_isTakenWithItsSegments) {
  const std::uint16_t id = this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  EXPECT_EQ(this->chain.id, id);
  EXPECT_EQ(this->chain.readable, 1);
  ASSERT_EQ(this->chain.segments.size(), 2U);
  EXPECT_EQ(this->chain.segments[0], (virtio::Segment{TypeParam::kData, 0x100}));
  EXPECT_EQ(this->chain.segments[1], (virtio::Segment{TypeParam::kData + 0x1000, 0x200}));
  EXPECT_FALSE(this->queue.pop(this->chain));
}

TYPED_TEST(QueueOf, IndirectChain_isTakenLikeADirectOne) {
  this->add_plain();
  this->add_plain(true);
  Chain direct, indirect;
  ASSERT_TRUE(this->queue.pop(direct) && this->queue.pop(indirect));
  EXPECT_EQ(indirect.segments, direct.segments);
  EXPECT_EQ(indirect.readable, direct.readable);
  EXPECT_EQ(indirect.slots, 1);
}

TYPED_TEST(QueueOf, UsedChain_reachesTheDriverWithItsLength) {
  const std::uint16_t id = this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  EXPECT_EQ(this->driver.take_used(), std::nullopt);
  this->queue.push_used(this->chain, 0x33);
  EXPECT_EQ(this->driver.take_used(), (RingUsed{id, 0x33}));
  EXPECT_EQ(this->driver.take_used(), std::nullopt);
  EXPECT_EQ(this->queue.in_flight(), 0);
}

TYPED_TEST(QueueOf, AddedChains_areSeenWhenPublished) {
  for (int round = 0; round < 5; ++round) {  // around the end of the ring
    const std::uint16_t a = this->add_plain();
    const std::uint16_t b = this->add_plain();
    Chain first, second;
    ASSERT_TRUE(this->queue.pop(first) && this->queue.pop(second));
    this->queue.add_used(first, 1);
    this->queue.add_used(second, 2);
    EXPECT_EQ(this->driver.take_used(), std::nullopt);
    EXPECT_NE(this->queue.in_flight(), 0);
    this->queue.publish_used();
    EXPECT_EQ(this->driver.take_used(), (RingUsed{a, 1}));
    EXPECT_EQ(this->driver.take_used(), (RingUsed{b, 2}));
    EXPECT_EQ(this->driver.take_used(), std::nullopt);
    EXPECT_EQ(this->queue.in_flight(), 0);
    EXPECT_TRUE(this->queue.take_interrupt());
  }
}

TYPED_TEST(QueueOf, PushedChain_publishesThoseAddedBefore) {
  const std::uint16_t a = this->add_plain();
  const std::uint16_t b = this->add_plain();
  Chain first, second;
  ASSERT_TRUE(this->queue.pop(first) && this->queue.pop(second));
  this->queue.add_used(first, 1);
  this->queue.push_used(second, 2);
  EXPECT_EQ(this->driver.take_used(), (RingUsed{a, 1}));
  EXPECT_EQ(this->driver.take_used(), (RingUsed{b, 2}));
}

TYPED_TEST(QueueOf, AddedChain_isForgottenByAReset) {
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  this->queue.add_used(this->chain, 1);
  this->queue.reset();
  this->queue.publish_used();
  EXPECT_EQ(this->driver.take_used(), std::nullopt);
  EXPECT_FALSE(this->queue.take_interrupt());
}

TYPED_TEST(QueueOf, WrittenLength_neverExceedsTheBuffer) {
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  this->queue.push_used(this->chain, 1ULL << 40);
  EXPECT_EQ(this->driver.take_used()->written, 0x200U);
}

// Through several rounds of the ring, with chains of different lengths, indirect ones among them.
TYPED_TEST(QueueOf, ManyRounds_keepOrderAndNumbers) {
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const std::uint16_t a = this->add_plain();
    const std::uint16_t b = this->add_plain(i % 3 == 0);
    Chain first, second;
    ASSERT_TRUE(this->queue.pop(first) && this->queue.pop(second)) << i;
    ASSERT_EQ(first.id, a);
    ASSERT_EQ(second.id, b);
    this->queue.push_used(first, i & 0xff);
    this->queue.push_used(second, (i + 1) & 0xff);
    ASSERT_EQ(this->driver.take_used(), (RingUsed{a, i & 0xff}));
    ASSERT_EQ(this->driver.take_used(), (RingUsed{b, (i + 1) & 0xff}));
  }
  EXPECT_TRUE(this->broken.empty());
}

TYPED_TEST(QueueOf, ChainsUsedOutOfOrder_arriveAsUsed) {
  for (int round = 0; round < 100; ++round) {
    const std::uint16_t a = this->add_plain();
    const std::uint16_t b = this->add_plain();
    Chain first, second;
    ASSERT_TRUE(this->queue.pop(first) && this->queue.pop(second));
    this->queue.push_used(second, 2);
    this->queue.push_used(first, 1);
    ASSERT_EQ(this->driver.take_used(), (RingUsed{b, 2}));
    ASSERT_EQ(this->driver.take_used(), (RingUsed{a, 1}));
  }
}

TYPED_TEST(QueueOf, UndonePop_isPoppedAgain) {
  for (int round = 0; round < 50; ++round) {
    this->add_plain();
    ASSERT_TRUE(this->queue.pop(this->chain));
    const Chain before = this->chain;
    this->queue.undo_pop(this->chain);
    EXPECT_EQ(this->queue.in_flight(), 0);
    ASSERT_TRUE(this->queue.pop(this->chain));
    ASSERT_EQ(this->chain, before);
    this->queue.push_used(this->chain, 0);
    ASSERT_TRUE(this->driver.take_used());
  }
}

TYPED_TEST(QueueOf, Cursors_copyAcrossSegments) {
  const std::vector<RingBuffer> buffers{
      {0x1000, 3, false}, {0x2000, 5, false}, {0x3000, 2, true}, {0x4000, 4, true}};
  ASSERT_TRUE(this->memory.write(Gpa(0x1000), std::as_bytes(std::span("abc", 3))));
  ASSERT_TRUE(this->memory.write(Gpa(0x2000), std::as_bytes(std::span("defgh", 5))));
  this->driver.add(buffers);
  ASSERT_TRUE(this->queue.pop(this->chain));
  ChainReader reader(this->memory, this->chain);
  std::array<char, 8> text{};
  EXPECT_EQ(reader.remaining(), 8U);
  EXPECT_EQ(reader.read(std::as_writable_bytes(std::span(text))), 8U);
  EXPECT_EQ(std::string_view(text.data(), 8), "abcdefgh");
  EXPECT_EQ(reader.read(std::as_writable_bytes(std::span(text))), 0U);
  ChainWriter writer(this->memory, this->chain);
  EXPECT_TRUE(writer.write(Le32(0x04030201)));
  EXPECT_FALSE(writer.write(Le32(0)));
  EXPECT_EQ(writer.written(), 4U);
  EXPECT_EQ(this->memory.template read<std::uint16_t>(Gpa(0x3000)).value(), 0x0201);
  EXPECT_EQ(this->memory.template read<std::uint16_t>(Gpa(0x4000)).value(), 0x0403);
}

TYPED_TEST(QueueOf, TakenSegments_makeAViewOfTheHosts) {
  const std::vector<RingBuffer> buffers{
      {0x1000, 16, false}, {0x2000, 512, true}, {0x3000, 1, true}};
  this->driver.add(buffers);
  ASSERT_TRUE(this->queue.pop(this->chain));
  ChainWriter writer(this->memory, this->chain);
  const virtio::HostView view(writer, 512);
  ASSERT_EQ(view.pieces().size(), 1U);
  EXPECT_EQ(view.bytes(), 512U);
  static_cast<char*>(view.pieces()[0].iov_base)[511] = 'x';
  EXPECT_EQ(this->memory.template read<char>(Gpa(0x21ff)).value(), 'x');
  EXPECT_EQ(writer.remaining(), 1U);
}

TYPED_TEST(QueueOf, NotificationsOff_driverDoesNotRing) {
  this->queue.disable_notifications();
  this->add_plain();
  EXPECT_FALSE(this->driver.must_notify());
  EXPECT_TRUE(this->queue.enable_notifications()) << "something came meanwhile";
  ASSERT_TRUE(this->queue.pop(this->chain));
  EXPECT_FALSE(this->queue.enable_notifications());
  this->add_plain();
  EXPECT_TRUE(this->driver.must_notify());
}

TYPED_TEST(QueueOf, InterruptsUnwanted_noneIsTaken) {
  this->driver.want_interrupts(false);
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  this->queue.push_used(this->chain, 0);
  EXPECT_FALSE(this->queue.take_interrupt());
  this->driver.want_interrupts(true);
  EXPECT_FALSE(this->queue.take_interrupt()) << "nothing was used since";
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  this->queue.push_used(this->chain, 0);
  EXPECT_TRUE(this->queue.take_interrupt());
}

TYPED_TEST(QueueOf, SavedInFlight_goesOnInAnotherQueue) {
  const std::uint16_t id = this->add_plain();
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  virtio::Queue other(this->memory, TypeParam::kSize, [](std::string_view) { FAIL(); });
  ASSERT_TRUE(other.check(this->queue.state(), TypeParam::kFeatures));
  other.restore(this->queue.state(), TypeParam::kFeatures);
  Chain kept = this->chain;
  ASSERT_TRUE(other.readmit(kept));
  other.push_used(kept, 7);
  EXPECT_EQ(this->driver.take_used(), (RingUsed{id, 7}));
  EXPECT_TRUE(other.pop(kept));
}

TYPED_TEST(QueueOf, ChainFromBeforeAReset_isDropped) {
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  this->queue.reset();
  ASSERT_TRUE(this->start());
  this->queue.push_used(this->chain, 1);
  EXPECT_EQ(this->driver.take_used(), std::nullopt);
  EXPECT_EQ(this->queue.in_flight(), 0);
}

template <typename Ring>
class QueueWithEventIdx : public testing::Test, public Ring {
 protected:
  bool use_one() {
    this->add_plain();
    EXPECT_TRUE(this->queue.pop(this->chain));
    this->queue.push_used(this->chain, 0);
    return this->queue.take_interrupt();
  }
};
using EventFormats = testing::Types<RingUnderTest<SplitDriver, virtio::kFeatureEventIdx>,
                                    RingUnderTest<PackedDriver, virtio::kFeatureEventIdx>>;
TYPED_TEST_SUITE(QueueWithEventIdx, EventFormats);

// A packed ring counts descriptors, a split ring chains: an indirect chain is one of either.
TYPED_TEST(QueueWithEventIdx, Interrupt_comesAtTheIndexAskedFor) {
  for (int round = 0; round < 100; ++round) {
    this->driver.want_interrupt_after(3);
    std::vector<bool> interrupts;
    for (int i = 0; i < 4; ++i) {
      this->add_plain(true);
      ASSERT_TRUE(this->queue.pop(this->chain));
      this->queue.push_used(this->chain, 0);
      interrupts.push_back(this->queue.take_interrupt());
    }
    EXPECT_EQ(interrupts, (std::vector<bool>{false, false, true, false})) << round;
    while (this->driver.take_used()) {
    }
  }
}

TYPED_TEST(QueueWithEventIdx, Batch_thatPassesTheIndexInterruptsOnce) {
  for (int round = 0; round < 100; ++round) {
    this->driver.want_interrupt_after(2);
    for (int i = 0; i < 4; ++i) this->add_plain(true);
    while (this->queue.pop(this->chain)) this->queue.push_used(this->chain, 0);
    EXPECT_TRUE(this->queue.take_interrupt()) << round;
    EXPECT_FALSE(this->queue.take_interrupt());
    while (this->driver.take_used()) {
    }
  }
}

TYPED_TEST(QueueWithEventIdx, Doorbell_isWantedForTheNextBufferOnly) {
  for (int round = 0; round < 100; ++round) {
    EXPECT_FALSE(this->queue.enable_notifications());
    this->add_plain(true);
    EXPECT_TRUE(this->driver.must_notify()) << round;
    this->add_plain(true);
    EXPECT_FALSE(this->driver.must_notify()) << "the device was told already";
    while (this->queue.pop(this->chain)) this->queue.push_used(this->chain, 0);
    while (this->driver.take_used()) {
    }
  }
}

TYPED_TEST(QueueOf, HeldQueue_isNotRungFor) {
  this->queue.hold_notifications();
  this->queue.disable_notifications();
  this->add_plain();
  ASSERT_TRUE(this->queue.pop(this->chain));
  EXPECT_FALSE(this->queue.enable_notifications());
  this->add_plain();
  EXPECT_FALSE(this->driver.must_notify());
  EXPECT_TRUE(this->queue.available());
}

TYPED_TEST(QueueOf, ReleasedQueue_saysWhatCameMeanwhileAndIsRungForAgain) {
  this->queue.hold_notifications();
  this->queue.disable_notifications();
  EXPECT_FALSE(this->queue.enable_notifications());
  this->add_plain();
  EXPECT_TRUE(this->queue.release_notifications());
  EXPECT_TRUE(this->driver.must_notify());
}

TYPED_TEST(QueueOf, ReleasedQueueThatWantsNoRings_staysQuiet) {
  this->queue.disable_notifications();
  this->queue.hold_notifications();
  this->add_plain();
  EXPECT_FALSE(this->queue.release_notifications());
  EXPECT_FALSE(this->driver.must_notify());
}

TYPED_TEST(QueueOf, ResetOfAHeldQueue_endsThat) {
  this->queue.hold_notifications();
  this->queue.reset();
  ASSERT_TRUE(this->start());
  this->queue.disable_notifications();
  EXPECT_FALSE(this->queue.enable_notifications());
  this->add_plain();
  EXPECT_TRUE(this->driver.must_notify());
}

}  // namespace
}  // namespace vmm::test

#include "devices/virtio/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/support/device_conformance.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Rng;

std::unique_ptr<virtio::Device> counting_rng() {
  return std::make_unique<Rng>("rng0", [next = std::uint8_t{0}](std::span<std::byte> out) mutable {
    for (std::byte& byte : out) byte = std::byte{++next};
  });
}

template <typename Ring>
class RngOn : public testing::Test {
 protected:
  RngOn() {
    EXPECT_TRUE(driver_.negotiate(Ring::kFeatures));
    EXPECT_TRUE(driver_.set_up_queue(0, ring_));
    driver_.driver_ok();
    rig_.serve();
  }
  // Asks for bytes and has the doorbell answered.
  std::uint32_t ask(std::vector<RingBuffer> buffers) {
    ring_.add(buffers);
    driver_.notify(0);
    rig_.serve();
    return ring_.take_used().value().written;
  }

  GuestMemory memory_ = make_ram();
  MmioRig rig_{memory_, counting_rng()};
  MmioDriver driver_{rig_.transport};
  Ring ring_{memory_, Gpa(0x8'0000), 16};
};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(RngOn, Rings);

TYPED_TEST(RngOn, Request_isFilled) {
  EXPECT_EQ(this->driver_.get(MmioDriver::kDeviceId), 4U);
  EXPECT_EQ(this->ask({{0x10'0000, 8, true}}), 8U);
  EXPECT_EQ(this->memory_.template read<std::uint64_t>(Gpa(0x10'0000)).value(),
            0x0807'0605'0403'0201U);
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
  EXPECT_FALSE(this->rig_.irq.level());
}

TYPED_TEST(RngOn, Request_acrossSegmentsIsFilled) {
  EXPECT_EQ(this->ask({{0x10'0000, 1, true}, {0x10'0100, 300, true}}), 301U);
  EXPECT_EQ(this->memory_.template read<std::uint8_t>(Gpa(0x10'0100)).value(), 2);
}

TYPED_TEST(RngOn, HugeRequest_getsAFewBytes) {
  EXPECT_EQ(this->ask({{0x10'0000, 0x20'0000, true}}), Rng::kMostBytes);
  EXPECT_EQ(this->memory_.template read<std::uint8_t>(Gpa(0x10'0000 + Rng::kMostBytes)).value(), 0);
}

TYPED_TEST(RngOn, ReadableRequest_isGivenBackEmpty) {
  EXPECT_EQ(this->ask({{0x10'0000, 16, false}}), 0U);
}

TYPED_TEST(RngOn, UnwantedInterrupt_isNotRaised) {
  this->ring_.want_interrupts(false);
  this->ask({{0x10'0000, 8, true}});
  EXPECT_EQ(this->rig_.irq.edges(), 0);
}

TYPED_TEST(RngOn, FullRing_isAnsweredInTurns) {
  const std::vector<RingBuffer> one{{0x10'0000, 8, true}};
  for (int i = 0; i < 16; ++i) this->ring_.add(one);
  this->driver_.notify(0);
  EXPECT_GE(this->rig_.serve(), 2) << "others have their turn after a ring's worth";
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(this->ring_.take_used());
}

TYPED_TEST(RngOn, SavedWithRequestsWaiting_answersThemAfterRestore) {
  this->ring_.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
  MmioRig other(this->memory_, counting_rng());
  ASSERT_TRUE(restore_from(other.transport, saved(this->rig_.transport)));
  EXPECT_TRUE(other.active);
  other.serve();
  EXPECT_EQ(this->ring_.take_used()->written, 8U);
  EXPECT_TRUE(other.irq.level());
}

TYPED_TEST(RngOn, BrokenRing_needsAResetAndWorksAfterIt) {
  this->ring_.add(std::vector<RingBuffer>{{kHighRam - 4, 8, true}});
  this->driver_.notify(0);
  this->rig_.serve();
  EXPECT_EQ(this->driver_.status() & virtio::kNeedsReset, virtio::kNeedsReset);
  EXPECT_EQ(this->driver_.take_interrupts(), 2U);
  EXPECT_EQ(this->rig_.transport.core().broken_count(), 1U);
  EXPECT_FALSE(this->rig_.active);
  EXPECT_TRUE(this->driver_.negotiate(TypeParam::kFeatures));
  this->ring_ = TypeParam(this->memory_, Gpa(0x8'0000), 16);
  EXPECT_TRUE(this->driver_.set_up_queue(0, this->ring_));
  this->driver_.driver_ok();
  EXPECT_EQ(this->ask({{0x10'0000, 8, true}}), 8U);
}

// Bytes of one seed, asked for in requests of this size; after the first ones the device is another
// one that goes on from its state.
std::string seeded(std::uint64_t seed, std::uint32_t request, bool moved = false) {
  const GuestMemory memory = make_ram();
  const auto device = [seed] { return std::make_unique<Rng>("rng0", seed); };
  MmioRig first(memory, device()), second(memory, device());
  SplitDriver ring(memory, Gpa(0x8'0000), 16);
  MmioDriver driver(first.transport), other(second.transport);
  EXPECT_TRUE(driver.negotiate(SplitDriver::kFeatures));
  EXPECT_TRUE(driver.set_up_queue(0, ring));
  driver.driver_ok();
  std::string bytes;
  for (int i = 0; bytes.size() < 48; ++i) {
    const bool here = !moved || i == 0;
    if (moved && i == 1) {
      EXPECT_TRUE(restore_from(second.transport, saved(first.transport)));
      second.serve();
    }
    ring.add(std::vector<RingBuffer>{{0x10'0000, request, true}});
    (here ? driver : other).notify(0);
    (here ? first : second).serve();
    EXPECT_EQ(ring.take_used()->written, request);
    std::string part(request, '?');
    EXPECT_TRUE(memory.read(Gpa(0x10'0000), std::as_writable_bytes(std::span(part))));
    bytes += part;
  }
  return bytes.substr(0, 48);
}

TEST(SeededRng, BytesFollowFromTheSeed) {
  EXPECT_EQ(seeded(1, 16), seeded(1, 16));
  EXPECT_NE(seeded(1, 16), seeded(2, 16));
}

TEST(SeededRng, HowTheyAreAskedForMakesNoDifference) {
  EXPECT_EQ(seeded(1, 16), seeded(1, 5));
  EXPECT_EQ(seeded(1, 16), seeded(1, 48));
}

TEST(SeededRng, GoesOnWhereItWasSaved) { EXPECT_EQ(seeded(1, 16), seeded(1, 5, true)); }

// The first words of SplitMix64 from 0 (its authors' reference code).
TEST(SeededRng, IsSplitMix64) {
  const std::string bytes = seeded(0, 48);
  EXPECT_EQ(load_le(std::as_bytes(std::span(bytes).first(8))), 0xe220'a839'7b1d'cdafU);
  EXPECT_EQ(load_le(std::as_bytes(std::span(bytes).subspan(8, 8))), 0x6e78'9e6a'a1b9'65f4U);
}

}  // namespace
}  // namespace vmm::test

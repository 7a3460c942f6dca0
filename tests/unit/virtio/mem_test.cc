#include "devices/virtio/mem.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "tests/support/device_conformance.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/plug_ram.h"

namespace vmm::test {
namespace {

using virtio::Mem;

constexpr std::uint16_t kRingSize = 16;
constexpr std::uint64_t kRequest = 0x20'0000, kAnswer = 0x20'1000;
constexpr std::uint64_t kBlock = kPlugBlock;
constexpr std::byte kMark{0x5a};

struct WireRequest {
  Le16 type;
  std::array<std::uint8_t, 6> padding0{};
  Le64 addr;
  Le16 nb_blocks;
  std::array<std::uint8_t, 6> padding1{};
};
static_assert(sizeof(WireRequest) == 24);

constexpr std::uint16_t kNone = 0xffff;  // no answer

template <typename Ring>
class MemRig {
 public:
  explicit MemRig(std::uint64_t requested = 8 * kBlock) : requested_(requested) {
    EXPECT_TRUE(driver.negotiate(Ring::kFeatures | Mem::kUnpluggedInaccessible));
    EXPECT_TRUE(driver.set_up_queue(0, ring));
    driver.driver_ok();
    rig.serve();
  }

  std::unique_ptr<virtio::Device> device(const GuestMemory& of) {
    return std::make_unique<Mem>("mem0", Gpa(kPlugBase), plug_blocks(of), requested_);
  }
  Mem& mem() { return static_cast<Mem&>(rig.transport.device()); }
  MemoryBlocks& blocks() { return plug_blocks(memory); }

  void put(std::uint16_t type, std::uint64_t address = 0, std::uint16_t count = 0,
           std::uint32_t size = sizeof(WireRequest), std::uint32_t room = 10) {
    EXPECT_TRUE(memory.write(Gpa(kRequest),
                             WireRequest{.type = type, .addr = address, .nb_blocks = count}));
    EXPECT_TRUE(memory.fill(*GpaRange::create(Gpa(kAnswer), 16), std::byte{0xff}));
    ring.add(std::vector<RingBuffer>{{kRequest, size, false}, {kAnswer, room, true}});
    driver.notify(0);
  }
  std::uint16_t answer() { return memory.read<std::uint16_t>(Gpa(kAnswer)).value(); }
  std::uint16_t state() { return memory.read<std::uint16_t>(Gpa(kAnswer + 8)).value(); }
  // What the device says to a request about blocks.
  std::uint16_t ask(std::uint16_t type, std::uint64_t block = 0, std::uint16_t count = 0) {
    put(type, kPlugBase + block * kBlock, count);
    rig.serve();
    return ring.take_used() ? answer() : kNone;
  }
  std::uint64_t config(std::uint64_t at) {
    const std::uint64_t low = driver.get(MmioDriver::kConfig + at);
    return low | std::uint64_t{driver.get(MmioDriver::kConfig + at + 4)} << 32;
  }
  Result<void> mark(std::uint64_t offset) { return memory.write(Gpa(kPlugBase + offset), kMark); }
  bool broken() { return (driver.status() & virtio::kNeedsReset) != 0; }

  const std::uint64_t requested_;
  GuestMemory memory = make_plug_ram();
  MmioRig rig{memory, device(memory)};
  MmioDriver driver{rig.transport};
  Ring ring{memory, Gpa(0x8'0000), kRingSize};
};

template <typename Ring>
class MemOn : public testing::Test, public MemRig<Ring> {};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(MemOn, Rings);

// --- Configuration

TYPED_TEST(MemOn, Configuration_saysWhereAndHowMuch) {
  EXPECT_EQ(this->driver.get(MmioDriver::kDeviceId), 24U);
  EXPECT_EQ(this->config(0), kBlock);
  EXPECT_EQ(this->config(16), kPlugBase);
  EXPECT_EQ(this->config(24), kPlugBlocks * kBlock);
  EXPECT_EQ(this->config(32), kPlugBlocks * kBlock);
  EXPECT_EQ(this->config(40), 0U);
  EXPECT_EQ(this->config(48), 8 * kBlock);
  this->ask(Mem::kPlug, 3, 2);
  EXPECT_EQ(this->config(40), 2 * kBlock);
}

TYPED_TEST(MemOn, NewRequestedSize_isAnnouncedOnce) {
  this->mem().set_requested(3 * kBlock);
  EXPECT_EQ(this->config(48), 3 * kBlock);
  EXPECT_EQ(this->driver.take_interrupts(), 2U);
  this->mem().set_requested(3 * kBlock);
  EXPECT_EQ(this->driver.take_interrupts(), 0U);
}

TYPED_TEST(MemOn, DriverThatWouldTouchUnpluggedMemory_isRefused) {
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_FALSE(this->driver.negotiate(TypeParam::kFeatures));
}

// --- Plugging

TYPED_TEST(MemOn, PluggedBlocks_areMemory) {
  EXPECT_FALSE(this->mark(2 * kBlock));
  EXPECT_EQ(this->ask(Mem::kPlug, 2, 3), Mem::kAck);
  EXPECT_TRUE(this->mark(2 * kBlock));
  EXPECT_TRUE(this->mark(5 * kBlock - 1));
  EXPECT_FALSE(this->mark(5 * kBlock));
  EXPECT_EQ(this->mem().plugged(), 3 * kBlock);
}

TYPED_TEST(MemOn, MoreThanWasAskedFor_isNotPlugged) {
  EXPECT_EQ(this->ask(Mem::kPlug, 0, 9), Mem::kNack);
  EXPECT_EQ(this->ask(Mem::kPlug, 0, 8), Mem::kAck);
  EXPECT_EQ(this->ask(Mem::kPlug, 8, 1), Mem::kNack);
  this->mem().set_requested(9 * kBlock);
  EXPECT_EQ(this->ask(Mem::kPlug, 8, 1), Mem::kAck);
  EXPECT_EQ(this->mem().counters().refused, 2U);
}

TYPED_TEST(MemOn, RangesThatAreNone_areErrors) {
  this->mem().set_requested(kPlugBlocks * kBlock);
  for (const std::uint16_t type : {Mem::kPlug, Mem::kUnplug, Mem::kState}) {
    EXPECT_EQ(this->ask(type, 0, 0), Mem::kError);
    EXPECT_EQ(this->ask(type, kPlugBlocks, 1), Mem::kError);
    EXPECT_EQ(this->ask(type, kPlugBlocks - 1, 2), Mem::kError);
    EXPECT_EQ(this->ask(type, 0, 0xffff), Mem::kError);
    for (const std::uint64_t address :
         {kPlugBase - kBlock, kPlugBase + 1, std::uint64_t{0}, ~std::uint64_t{0} - kBlock + 1}) {
      this->put(type, address, 1);
      this->rig.serve();
      EXPECT_TRUE(this->ring.take_used());
      EXPECT_EQ(this->answer(), Mem::kError) << address;
    }
  }
  EXPECT_EQ(this->mem().plugged(), 0U);
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(MemOn, WhatIsPluggedInPart_isNeitherPluggedNorUnplugged) {
  EXPECT_EQ(this->ask(Mem::kPlug, 1, 1), Mem::kAck);
  EXPECT_EQ(this->ask(Mem::kPlug, 0, 2), Mem::kError);
  EXPECT_EQ(this->ask(Mem::kUnplug, 0, 2), Mem::kError);
  EXPECT_EQ(this->mem().plugged(), kBlock);
}

TYPED_TEST(MemOn, State_isTold) {
  this->ask(Mem::kPlug, 2, 2);
  EXPECT_EQ(this->ask(Mem::kState, 2, 2), Mem::kAck);
  EXPECT_EQ(this->state(), Mem::kPlugged);
  EXPECT_EQ(this->ask(Mem::kState, 4, 3), Mem::kAck);
  EXPECT_EQ(this->state(), Mem::kUnplugged);
  EXPECT_EQ(this->ask(Mem::kState, 0, 8), Mem::kAck);
  EXPECT_EQ(this->state(), Mem::kMixed);
}

// --- Unplugging

TYPED_TEST(MemOn, UnpluggedBlocks_goAndComeBackEmpty) {
  this->ask(Mem::kPlug, 0, 4);
  ASSERT_TRUE(this->mark(kBlock));
  ASSERT_TRUE(this->mark(0));
  EXPECT_EQ(this->ask(Mem::kUnplug, 1, 2), Mem::kAck);
  EXPECT_FALSE(this->mark(kBlock));
  EXPECT_EQ(this->mem().plugged(), 2 * kBlock);
  EXPECT_EQ(this->ask(Mem::kPlug, 1, 1), Mem::kAck);
  EXPECT_EQ(this->memory.template read<std::byte>(Gpa(kPlugBase + kBlock)).value(), std::byte{0});
  EXPECT_EQ(this->memory.template read<std::byte>(Gpa(kPlugBase)).value(), kMark);
}

TYPED_TEST(MemOn, UnplugAll_takesAll) {
  this->ask(Mem::kPlug, 0, 1);
  this->ask(Mem::kPlug, 5, 3);
  EXPECT_EQ(this->ask(Mem::kUnplugAll), Mem::kAck);
  EXPECT_EQ(this->mem().plugged(), 0U);
  EXPECT_EQ(this->ask(Mem::kUnplugAll), Mem::kAck);
}

TYPED_TEST(MemOn, UnplugAll_needsNoRange) {
  this->ask(Mem::kPlug, 0, 1);
  this->put(Mem::kUnplugAll, 0, 0, 8);
  this->rig.serve();
  EXPECT_EQ(this->answer(), Mem::kAck);
  EXPECT_EQ(this->mem().plugged(), 0U);
}

TYPED_TEST(MemOn, BlocksInUse_areBusy) {
  this->ask(Mem::kPlug, 0, 4);
  {
    const auto held = this->memory.hold(*GpaRange::create(Gpa(kPlugBase + kBlock), 512)).value();
    EXPECT_EQ(this->ask(Mem::kUnplug, 0, 2), Mem::kBusy);
    EXPECT_EQ(this->ask(Mem::kUnplugAll), Mem::kBusy);
    EXPECT_EQ(this->mem().plugged(), 4 * kBlock);
    EXPECT_EQ(this->ask(Mem::kUnplug, 2, 1), Mem::kAck);
  }
  EXPECT_EQ(this->ask(Mem::kUnplugAll), Mem::kAck);
}

// 128 MiB: two turns of 64.
TYPED_TEST(MemOn, MuchMemory_goesInTurns) {
  this->mem().set_requested(kPlugBlocks * kBlock);
  this->ask(Mem::kPlug, 0, kPlugBlocks);
  this->put(Mem::kUnplugAll);
  EXPECT_EQ(this->rig.serve(1), 1);
  EXPECT_FALSE(this->ring.take_used()) << "it is not done yet";
  EXPECT_EQ(this->mem().plugged(), 0U) << "but nothing is memory any more";
  EXPECT_GE(this->rig.serve(), 1);
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_EQ(this->answer(), Mem::kAck);
}

TYPED_TEST(MemOn, PlugAfterAResetBetweenTurns_comesAfterTheRest) {
  this->mem().set_requested(kPlugBlocks * kBlock);
  this->ask(Mem::kPlug, 0, kPlugBlocks);
  for (std::uint32_t i = 0; i < kPlugBlocks; ++i) ASSERT_TRUE(this->mark(i * kBlock));
  this->put(Mem::kUnplugAll);
  this->rig.serve(1);
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_TRUE(this->driver.negotiate(TypeParam::kFeatures | Mem::kUnpluggedInaccessible));
  this->ring = TypeParam(this->memory, Gpa(0x8'0000), kRingSize);
  EXPECT_TRUE(this->driver.set_up_queue(0, this->ring));
  this->driver.driver_ok();
  this->rig.serve();
  EXPECT_EQ(this->ask(Mem::kPlug, 0, kPlugBlocks), Mem::kAck);
  for (std::uint32_t i = 0; i < kPlugBlocks; ++i) {
    EXPECT_EQ(this->memory.template read<std::byte>(Gpa(kPlugBase + i * kBlock)).value(),
              std::byte{0});
  }
}

// --- Drivers that do not keep to the rules

TYPED_TEST(MemOn, OddRequests_areAnswered) {
  for (const std::uint32_t size : {1U, 2U, 23U}) {
    this->put(Mem::kPlug, kPlugBase, 1, size);
    this->rig.serve();
    EXPECT_TRUE(this->ring.take_used());
    EXPECT_EQ(this->answer(), Mem::kError) << size;
  }
  EXPECT_EQ(this->ask(4, 0, 1), Mem::kError);
  EXPECT_EQ(this->ask(0xffff, 0, 1), Mem::kError);
  EXPECT_EQ(this->mem().plugged(), 0U);
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(MemOn, AnswerWithoutRoom_isCutOff) {
  this->put(Mem::kPlug, kPlugBase, 1, sizeof(WireRequest), 1);
  this->rig.serve();
  EXPECT_EQ(this->ring.take_used()->written, 1U);
  EXPECT_EQ(this->mem().plugged(), kBlock);
}

TYPED_TEST(MemOn, BufferInUnpluggedMemory_breaksTheRing) {
  this->ring.add(std::vector<RingBuffer>{{kPlugBase, 24, false}, {kAnswer, 10, true}});
  this->driver.notify(0);
  this->rig.serve();
  EXPECT_TRUE(this->broken());
}

TYPED_TEST(MemOn, RingInMemoryThatIsUnplugged_endsInAReset) {
  this->ask(Mem::kPlug, 0, 1);
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_TRUE(this->driver.negotiate(TypeParam::kFeatures | Mem::kUnpluggedInaccessible));
  TypeParam inside(this->memory, Gpa(kPlugBase), kRingSize);
  EXPECT_TRUE(this->driver.set_up_queue(0, inside));
  this->driver.driver_ok();
  this->rig.serve();
  WireRequest request;
  request.type = Mem::kUnplugAll;
  EXPECT_TRUE(this->memory.write(Gpa(kRequest), request));
  inside.add(std::vector<RingBuffer>{{kRequest, 24, false}, {kAnswer, 10, true}});
  this->driver.notify(0);
  this->rig.serve();  // the answer has no ring to go to
  EXPECT_EQ(this->mem().plugged(), 0U);
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->driver.status(), 0);
}

// --- State

TYPED_TEST(MemOn, Reset_leavesMemoryAsItIs) {
  this->ask(Mem::kPlug, 2, 2);
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->mem().plugged(), 2 * kBlock);
  EXPECT_TRUE(this->mark(2 * kBlock));
}

TYPED_TEST(MemOn, State_plugsTheSameBlocksElsewhere) {
  this->ask(Mem::kPlug, 0, 1);
  this->ask(Mem::kPlug, 4, 3);
  MemRig<TypeParam> other;
  other.ask(Mem::kPlug, 0, 2);
  ASSERT_TRUE(other.mark(0));
  ASSERT_TRUE(restore_from(other.rig.transport, saved(this->rig.transport)));
  EXPECT_EQ(saved(other.rig.transport), saved(this->rig.transport));
  EXPECT_EQ(other.mem().plugged(), 4 * kBlock);
  EXPECT_EQ(other.memory.template read<std::byte>(Gpa(kPlugBase)).value(), kMark) << "it stayed";
  EXPECT_FALSE(other.mark(kBlock));
  EXPECT_TRUE(other.mark(6 * kBlock));
}

TYPED_TEST(MemOn, RequestBetweenTurns_isSavedAndFinished) {
  this->mem().set_requested(kPlugBlocks * kBlock);
  this->ask(Mem::kPlug, 0, kPlugBlocks);
  this->put(Mem::kUnplugAll);
  this->rig.serve(1);
  const auto document = saved(this->rig.transport);
  // Another machine has a copy of the memory.
  MemRig<TypeParam> other;
  std::vector<std::byte> low(kRamSize);
  ASSERT_TRUE(this->memory.read(Gpa(0), low));
  ASSERT_TRUE(other.memory.write(Gpa(0), low));
  ASSERT_TRUE(restore_from(other.rig.transport, document));
  EXPECT_EQ(saved(other.rig.transport), document);
  other.rig.serve();
  EXPECT_EQ(other.answer(), Mem::kAck);
}

TYPED_TEST(MemOn, StatesThatCannotBe_areRefusedAndChangeNothing) {
  this->ask(Mem::kPlug, 1, 1);
  const auto before = saved(this->rig.transport);
  auto document = before;
  auto& state = document.at("parts").at("device").at("state");
  const auto refuse = [&](const char* field, const nlohmann::json& value) {
    const auto old = state.at(field);
    state[field] = value;
    EXPECT_FALSE(restore_from(this->rig.transport, document)) << field << value;
    state[field] = old;
    EXPECT_EQ(saved(this->rig.transport), before);
  };
  refuse("requested", 1);
  refuse("requested", (kPlugBlocks + 1) * kBlock);
  refuse("acknowledged", true);
  const auto run = [](std::uint64_t first, std::uint64_t count) {
    return nlohmann::json{{"first", first}, {"count", count}};
  };
  refuse("plugged", {run(0, 0)});
  refuse("plugged", {run(kPlugBlocks, 1)});
  refuse("plugged", {run(1, kPlugBlocks)});
  refuse("plugged", {run(4, 2), run(5, 1)});
  refuse("plugged", {run(4, 1), run(2, 1)});
  refuse("plugged", {run(0, 0xffff'ffff)});
}

// --- Other devices

// A disk writes to memory that the driver unplugs meanwhile.
TEST(MemAndDisk, BlocksOfATransferUnderWay_areBusy) {
  const GuestMemory memory = make_plug_ram();
  MemoryBlocks& blocks = plug_blocks(memory);
  ASSERT_TRUE(blocks.plug(0, 1));
  const auto range = *GpaRange::create(Gpa(kPlugBase), 4096);
  const std::vector<virtio::Segment> segments{{kPlugBase, 4096}};
  {
    const virtio::HostView view(memory, segments);
    EXPECT_EQ(view.bytes(), 4096U);
    EXPECT_FALSE(blocks.withdraw(0, 1));
  }
  EXPECT_TRUE(blocks.withdraw(0, 1));
  EXPECT_FALSE(memory.contains(range));
  EXPECT_EQ(virtio::HostView(memory, segments).bytes(), 0U);
}

struct MemConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 64, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_plug_ram();
  MmioRig rig{memory, std::make_unique<Mem>("mem0", Gpa(kPlugBase), plug_blocks(memory), kBlock)};
  virtio::MmioTransport& device = rig.transport;

  // A request waits for memory that is still going, and an interrupt.
  void mutate() {
    MmioDriver driver(device);
    SplitDriver ring(memory, Gpa(0x8'0000), kRingSize);
    driver.negotiate(SplitDriver::kFeatures | Mem::kUnpluggedInaccessible);
    driver.set_up_queue(0, ring);
    driver.driver_ok();
    rig.serve();
    ring.add(std::vector<RingBuffer>{{kRequest, 24, false}, {kAnswer, 10, true}});
    driver.notify(0);
    rig.serve();
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioMem, DeviceConformance, MemConformanceRig);

}  // namespace
}  // namespace vmm::test

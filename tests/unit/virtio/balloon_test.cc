#include "devices/virtio/balloon.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "tests/support/device_conformance.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Balloon;

constexpr std::uint64_t kAll =
    Balloon::kMustTellHost | Balloon::kStatsVq | Balloon::kDeflateOnOom | Balloon::kPageReporting;
constexpr std::uint64_t kPage = Balloon::kPageSize;
constexpr std::uint16_t kRingSize = 32;
constexpr std::uint64_t kNumbers = 0x20'0000;  // where lists of page numbers lie
constexpr std::uint64_t kPages = 0x30'0000;    // what is given away
constexpr std::byte kMark{0x5a};

// A driver with all its queues, as the specification numbers them or as Linux does.
template <typename Ring>
class BalloonRig {
 public:
  explicit BalloonRig(std::uint64_t features = kAll, bool counted = false) {
    EXPECT_TRUE(memory.fill(*GpaRange::create(Gpa(kPages), kRamSize - kPages), kMark));
    EXPECT_TRUE(memory.fill(*GpaRange::create(Gpa(kHighRam), kHighRamSize), kMark));
    EXPECT_TRUE(driver.negotiate(Ring::kFeatures | features));
    EXPECT_TRUE(driver.set_up_queue(Balloon::kInflate, inflate));
    EXPECT_TRUE(driver.set_up_queue(Balloon::kDeflate, deflate));
    const bool stats_there = (features & Balloon::kStatsVq) != 0;
    if (stats_there) {
      EXPECT_TRUE(driver.set_up_queue(Balloon::kStats, stats));
    }
    reporting = counted ? (stats_there ? 3 : 2) : Balloon::kReporting;
    if ((features & Balloon::kPageReporting) != 0) {
      EXPECT_TRUE(driver.set_up_queue(reporting, reports));
    }
    driver.driver_ok();
    rig.serve();
  }

  static std::unique_ptr<virtio::Device> device() {
    return std::make_unique<Balloon>("balloon0", Balloon::Options{.size = 16 * kPage,
                                                                  .deflate_on_oom = true,
                                                                  .free_page_reporting = true,
                                                                  .statistics = true});
  }
  Balloon& balloon() { return static_cast<Balloon&>(rig.transport.device()); }

  void put_numbers(const std::vector<std::uint32_t>& pages, std::uint64_t at = kNumbers) {
    EXPECT_TRUE(memory.write(Gpa(at), std::as_bytes(std::span(pages))));
  }
  // Puts these pages into the balloon; how many turns that took.
  int give(const std::vector<std::uint32_t>& pages) {
    put_numbers(pages);
    inflate.add(
        std::vector<RingBuffer>{{kNumbers, static_cast<std::uint32_t>(4 * pages.size()), false}});
    driver.notify(Balloon::kInflate);
    const int turns = rig.serve();
    EXPECT_TRUE(inflate.take_used());
    return turns;
  }
  int report(const std::vector<RingBuffer>& ranges) {
    reports.add(ranges);
    driver.notify(reporting);
    const int turns = rig.serve();
    EXPECT_TRUE(reports.take_used());
    return turns;
  }
  bool is_there(std::uint64_t at) { return memory.read<std::byte>(Gpa(at)).value() == kMark; }
  std::uint32_t config(std::uint64_t at) { return driver.get(MmioDriver::kConfig + at); }
  bool broken() { return (driver.status() & virtio::kNeedsReset) != 0; }

  GuestMemory memory = make_ram();
  MmioRig rig{memory, device()};
  MmioDriver driver{rig.transport};
  Ring inflate{memory, Gpa(0x4'0000), kRingSize};
  Ring deflate{memory, Gpa(0x8'0000), kRingSize};
  Ring stats{memory, Gpa(0xc'0000), kRingSize};
  Ring reports{memory, Gpa(0x10'0000), kRingSize};
  std::uint16_t reporting = Balloon::kReporting;
};

std::uint32_t page(std::uint64_t address) { return static_cast<std::uint32_t>(address / kPage); }

template <typename Ring>
class BalloonOn : public testing::Test, public BalloonRig<Ring> {};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(BalloonOn, Rings);

// --- Size

TYPED_TEST(BalloonOn, Configuration_hasTheWantedSize) {
  EXPECT_EQ(this->driver.get(MmioDriver::kDeviceId), 5U);
  EXPECT_EQ(this->driver.offered() & 0xffff, kAll);
  EXPECT_EQ(this->config(0), 16U);
  EXPECT_EQ(this->config(4), 0U);
}

TYPED_TEST(BalloonOn, NewTarget_isAnnouncedOnce) {
  const std::uint32_t generation = this->driver.get(MmioDriver::kConfigGeneration);
  this->balloon().set_target(MiB(1) + 1);
  EXPECT_EQ(this->config(0), 256U);
  EXPECT_EQ(this->balloon().target(), MiB(1));
  EXPECT_EQ(this->driver.take_interrupts(), 2U);
  EXPECT_NE(this->driver.get(MmioDriver::kConfigGeneration), generation);
  this->balloon().set_target(MiB(1));
  EXPECT_EQ(this->driver.take_interrupts(), 0U);
}

TYPED_TEST(BalloonOn, TargetBeyondCounting_isTheLargest) {
  this->balloon().set_target(~0ULL);
  EXPECT_EQ(this->config(0), 0xffff'ffffU);
}

TYPED_TEST(BalloonOn, DriversSize_isTold) {
  this->driver.put(MmioDriver::kConfig + 4, 7);
  EXPECT_EQ(this->config(4), 7U);
  EXPECT_EQ(this->balloon().actual(), 7 * kPage);
}

TYPED_TEST(BalloonOn, WantedSize_isNotTheDrivers) {
  this->driver.put(MmioDriver::kConfig, 7);
  EXPECT_EQ(this->config(0), 16U);
}

TYPED_TEST(BalloonOn, Reset_emptiesItAndKeepsTheTarget) {
  this->driver.put(MmioDriver::kConfig + 4, 7);
  this->balloon().set_target(MiB(1));
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->balloon().actual(), 0U);
  EXPECT_EQ(this->balloon().target(), MiB(1));
}

// --- Inflation and deflation

TYPED_TEST(BalloonOn, InflatedPages_goAndComeBackEmpty) {
  this->give({page(kPages), page(kPages) + 2});
  EXPECT_FALSE(this->is_there(kPages));
  EXPECT_TRUE(this->is_there(kPages + kPage));
  EXPECT_FALSE(this->is_there(kPages + 2 * kPage));
  EXPECT_EQ(this->balloon().counters().inflated_bytes, 2 * kPage);
  EXPECT_EQ(this->driver.take_interrupts(), 1U);
  this->put_numbers({page(kPages)});
  this->deflate.add(std::vector<RingBuffer>{{kNumbers, 4, false}});
  this->driver.notify(Balloon::kDeflate);
  this->rig.serve();
  EXPECT_EQ(this->deflate.take_used()->written, 0U);
  ASSERT_TRUE(this->memory.template write<std::byte>(Gpa(kPages), kMark));
  EXPECT_TRUE(this->is_there(kPages));
}

TYPED_TEST(BalloonOn, PagesInAnyOrderAndTwice_goOnce) {
  const std::uint32_t first = page(kPages);
  this->give({first + 3, first, first + 1, first + 3, first, first + 2});
  EXPECT_EQ(this->balloon().counters().inflated_bytes, 4 * kPage);
  this->give({first});
  EXPECT_FALSE(this->is_there(kPages));
}

TYPED_TEST(BalloonOn, PagesThatAreNoRam_areLeftAlone) {
  this->give({page(kRamSize), page(kHighRam) - 1, page(kHighRam + kHighRamSize), 0xffff'ffff,
              page(kRamSize) - 1, page(kHighRam)});
  EXPECT_EQ(this->balloon().counters().refused_pages, 4U);
  EXPECT_FALSE(this->is_there(kRamSize - kPage));
  EXPECT_TRUE(this->is_there(kRamSize - kPage - 1));
  EXPECT_FALSE(this->is_there(kHighRam));
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(BalloonOn, HalfANumber_isNone) {
  this->put_numbers({page(kPages), page(kPages) + 1});
  this->inflate.add(std::vector<RingBuffer>{{kNumbers, 7, false}});
  this->driver.notify(Balloon::kInflate);
  this->rig.serve();
  EXPECT_TRUE(this->inflate.take_used());
  EXPECT_FALSE(this->is_there(kPages));
  EXPECT_TRUE(this->is_there(kPages + kPage));
}

TYPED_TEST(BalloonOn, WritableRequest_isGivenBack) {
  this->inflate.add(std::vector<RingBuffer>{{kNumbers, 64, true}});
  this->driver.notify(Balloon::kInflate);
  this->rig.serve();
  EXPECT_TRUE(this->inflate.take_used());
  EXPECT_EQ(this->balloon().counters().inflated_bytes, 0U);
}

TYPED_TEST(BalloonOn, ManyPages_takeTurns) {
  // All the same page: what counts is how many numbers are looked at.
  const std::vector<std::uint32_t> many(5 * Balloon::kMostCalls, page(kPages));
  EXPECT_GE(this->give(many), 5);
  EXPECT_FALSE(this->is_there(kPages));
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(BalloonOn, OwnRing_mayBeGivenAway) {
  // The used ring is zeroes then, until the device writes what it knows.
  this->give({page(this->inflate.device_area()), page(kNumbers)});
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(BalloonOn, RequestBetweenTurns_isSavedAndFinished) {
  const std::vector<std::uint32_t> many(3 * Balloon::kMostCalls, page(kPages) + 1);
  this->put_numbers(many);
  this->put_numbers({page(kPages)}, kNumbers + 4 * (many.size() - 1));
  this->inflate.add(
      std::vector<RingBuffer>{{kNumbers, static_cast<std::uint32_t>(4 * many.size()), false}});
  this->driver.notify(Balloon::kInflate);
  this->rig.serve(1);
  EXPECT_TRUE(this->balloon().state().inflating);
  EXPECT_FALSE(this->inflate.take_used());
  EXPECT_TRUE(this->is_there(kPages));

  MmioRig other(this->memory, this->device());
  ASSERT_TRUE(restore_from(other.transport, saved(this->rig.transport)));
  EXPECT_EQ(saved(other.transport), saved(this->rig.transport));
  other.serve();
  EXPECT_TRUE(this->inflate.take_used());
  EXPECT_FALSE(this->is_there(kPages));
}

TYPED_TEST(BalloonOn, ResetBetweenTurns_forgetsTheRequest) {
  const std::vector<std::uint32_t> many(3 * Balloon::kMostCalls, page(kPages));
  this->put_numbers(many);
  this->inflate.add(
      std::vector<RingBuffer>{{kNumbers, static_cast<std::uint32_t>(4 * many.size()), false}});
  this->driver.notify(Balloon::kInflate);
  this->rig.serve(1);
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_FALSE(this->balloon().state().inflating);
  this->rig.serve();
  EXPECT_EQ(this->driver.status(), 0);
}

// --- Free page reports

TYPED_TEST(BalloonOn, ReportedRanges_go) {
  this->report({{kPages, 4 * kPage, true}, {kHighRam, kPage, true}});
  EXPECT_FALSE(this->is_there(kPages));
  EXPECT_FALSE(this->is_there(kPages + 4 * kPage - 1));
  EXPECT_TRUE(this->is_there(kPages + 4 * kPage));
  EXPECT_FALSE(this->is_there(kHighRam));
  EXPECT_EQ(this->balloon().counters().reported_bytes, 5 * kPage);
  EXPECT_EQ(this->balloon().counters().inflated_bytes, 0U);
}

TYPED_TEST(BalloonOn, UnalignedRange_losesWholePagesOnly) {
  this->report({{kPages + 1, 3 * kPage, true}});
  EXPECT_TRUE(this->is_there(kPages + 1));
  EXPECT_FALSE(this->is_there(kPages + kPage));
  EXPECT_FALSE(this->is_there(kPages + 3 * kPage - 1));
  EXPECT_TRUE(this->is_there(kPages + 3 * kPage));
  this->report({{kPages + 3 * kPage + 8, 64, true}});
  EXPECT_TRUE(this->is_there(kPages + 3 * kPage + 8));
}

TYPED_TEST(BalloonOn, ReadableReport_isGivenBack) {
  this->report({{kPages, kPage, false}});
  EXPECT_TRUE(this->is_there(kPages));
}

TYPED_TEST(BalloonOn, ReportOfWhatIsNoRam_breaksTheRing) {
  this->reports.add(std::vector<RingBuffer>{{kRamSize - kPage, 2 * kPage, true}});
  this->driver.notify(this->reporting);
  this->rig.serve();
  EXPECT_TRUE(this->broken());
  EXPECT_TRUE(this->is_there(kRamSize - kPage));
}

TYPED_TEST(BalloonOn, SmallRanges_takeTurns) {
  const std::vector<RingBuffer> pages(kRingSize, RingBuffer{kPages, kPage, true});
  // A queue's worth of them is looked at in one turn, with the ring's own pause behind it.
  EXPECT_LE(this->report(pages), 2);
  EXPECT_EQ(this->balloon().counters().reported_bytes, kRingSize * kPage);
}

template <typename Ring>
class LargeReportOn : public testing::Test {};
TYPED_TEST_SUITE(LargeReportOn, Rings);

// 256 MiB, most of which nobody ever touched.
TYPED_TEST(LargeReportOn, IsDoneInTurns) {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), MiB(256)), {}).value());
  const GuestMemory memory = GuestMemory::create(std::move(regions)).value();
  MmioRig rig(memory, BalloonRig<TypeParam>::device());
  MmioDriver driver(rig.transport);
  TypeParam reports(memory, Gpa(0x10'0000), kRingSize);
  ASSERT_TRUE(driver.negotiate(TypeParam::kFeatures | Balloon::kPageReporting));
  ASSERT_TRUE(driver.set_up_queue(Balloon::kReporting, reports));
  driver.driver_ok();
  rig.serve();
  const std::vector<std::uint64_t> marks{MiB(64), MiB(128), MiB(194), MiB(256) - 1};
  for (const std::uint64_t at : marks) ASSERT_TRUE(memory.write(Gpa(at), kMark));
  // Two ranges, the first of which ends within a page: the cut must not lose any.
  reports.add(std::vector<RingBuffer>{{MiB(2), static_cast<std::uint32_t>(MiB(1) + 100), true},
                                      {MiB(4), static_cast<std::uint32_t>(MiB(252)), true}});
  driver.notify(Balloon::kReporting);
  EXPECT_GE(rig.serve(), 4);
  EXPECT_TRUE(reports.take_used());
  for (const std::uint64_t at : marks) {
    EXPECT_EQ(memory.read<std::byte>(Gpa(at)).value(), std::byte{0}) << at;
  }
  const auto& balloon = static_cast<Balloon&>(rig.transport.device());
  EXPECT_EQ(balloon.counters().reported_bytes, MiB(253));
}

// Linux counts only the queues of features that it took.
TYPED_TEST(LargeReportOn, QueueIsFoundWhereTheDriverPutIt) {
  for (const std::uint64_t features : {kAll, kAll & ~Balloon::kStatsVq}) {
    for (const bool counted : {false, true}) {
      BalloonRig<TypeParam> rig(features, counted);
      rig.report({{kPages, kPage, true}});
      EXPECT_FALSE(rig.is_there(kPages)) << features << counted;
    }
  }
}

// --- Statistics

// A tag and a value as they lie in memory.
std::vector<std::byte> stat(std::uint16_t tag, std::uint64_t value) {
  std::vector<std::byte> bytes(10);
  store_le(std::span(bytes).first(2), tag);
  store_le(std::span(bytes).subspan(2), value);
  return bytes;
}

template <typename Ring>
class BalloonStatsOn : public BalloonOn<Ring> {
 protected:
  void tell(const std::vector<std::vector<std::byte>>& all) {
    std::vector<std::byte> bytes;
    for (const auto& one : all) bytes.insert(bytes.end(), one.begin(), one.end());
    EXPECT_TRUE(this->memory.write(Gpa(kNumbers), std::span<const std::byte>(bytes)));
    this->stats.add(
        std::vector<RingBuffer>{{kNumbers, static_cast<std::uint32_t>(bytes.size()), false}});
    this->driver.notify(Balloon::kStats);
    this->rig.serve();
  }
  std::optional<std::uint64_t> value(std::size_t tag) {
    return this->balloon().state().stats.at(tag);
  }
};
TYPED_TEST_SUITE(BalloonStatsOn, Rings);

TYPED_TEST(BalloonStatsOn, Numbers_areKeptUntilNewOnesAreWanted) {
  this->tell({stat(4, MiB(3)), stat(5, MiB(5))});
  EXPECT_EQ(this->value(4), MiB(3));
  EXPECT_EQ(this->value(5), MiB(5));
  EXPECT_FALSE(this->value(0));
  EXPECT_FALSE(this->stats.take_used()) << "the buffer waits until it is needed";
  this->balloon().request_stats();
  EXPECT_TRUE(this->stats.take_used());
  EXPECT_EQ(this->driver.take_interrupts(), 1U);
  this->balloon().request_stats();
  EXPECT_FALSE(this->stats.take_used()) << "the driver has not answered yet";
  this->tell({stat(4, MiB(2))});
  EXPECT_EQ(this->value(4), MiB(2));
  EXPECT_FALSE(this->value(5)) << "of the last time";
}

TYPED_TEST(BalloonStatsOn, UnknownTags_areIgnored) {
  this->tell({stat(10, 1), stat(0xffff, 2), stat(9, 3)});
  EXPECT_EQ(this->value(9), 3U);
}

TYPED_TEST(BalloonStatsOn, EndlessNumbers_areCutOff) {
  this->stats.add(std::vector<RingBuffer>{{kPages, 0x8'0000, false}});
  this->driver.notify(Balloon::kStats);
  this->rig.serve();
  EXPECT_TRUE(this->balloon().state().stats_buffer);
}

TYPED_TEST(BalloonStatsOn, SecondBuffer_givesTheFirstBack) {
  this->tell({stat(4, 1)});
  this->tell({stat(4, 2)});
  EXPECT_TRUE(this->stats.take_used());
  EXPECT_FALSE(this->stats.take_used());
  EXPECT_EQ(this->value(4), 2U);
}

TYPED_TEST(BalloonStatsOn, BufferAndNumbers_surviveARestore) {
  this->tell({stat(4, MiB(3))});
  MmioRig other(this->memory, this->device());
  ASSERT_TRUE(restore_from(other.transport, saved(this->rig.transport)));
  auto& balloon = static_cast<Balloon&>(other.transport.device());
  EXPECT_EQ(saved(other.transport), saved(this->rig.transport));
  EXPECT_EQ(balloon.state().stats, this->balloon().state().stats);
  balloon.request_stats();
  EXPECT_TRUE(this->stats.take_used());
}

// Restored broken, it was never activated; its queues can be reset all the same.
TYPED_TEST(BalloonStatsOn, BufferOfABrokenOneThatMoved_goesWithItsQueue) {
  BalloonRig<TypeParam> board(kAll | virtio::kFeatureRingReset);
  board.stats.add(std::vector<RingBuffer>{{kNumbers, 10, false}});
  board.driver.notify(Balloon::kStats);
  board.rig.serve();
  board.driver.put(MmioDriver::kStatus, board.driver.status() | virtio::kFailed);
  MmioRig other(board.memory, board.device());
  ASSERT_TRUE(restore_from(other.transport, saved(board.rig.transport)));
  const auto& balloon = static_cast<const Balloon&>(other.transport.device());
  ASSERT_TRUE(balloon.state().stats_buffer);
  MmioDriver later(other.transport);
  later.put(MmioDriver::kQueueSel, Balloon::kStats);
  later.put(MmioDriver::kQueueReady, 0);
  EXPECT_FALSE(balloon.state().stats_buffer);
  MmioRig third(board.memory, board.device());
  EXPECT_TRUE(restore_from(third.transport, saved(other.transport)));
}

TYPED_TEST(BalloonStatsOn, RequestWithoutADriver_isNone) {
  this->tell({stat(4, 1)});
  this->driver.put(MmioDriver::kStatus, 0);
  this->balloon().request_stats();
  EXPECT_FALSE(this->stats.take_used());
}

TEST(Balloon, Options_areTheFeatures) {
  const Balloon plain("balloon0", {});
  EXPECT_EQ(plain.features(), Balloon::kMustTellHost);
  EXPECT_EQ(plain.queue_sizes().size(), 2U);
  const Balloon stats("balloon0", {.statistics = true});
  EXPECT_EQ(stats.queue_sizes().size(), 3U);
  const Balloon reports("balloon0", {.free_page_reporting = true});
  EXPECT_EQ(reports.queue_sizes().size(), 5U);
}

// --- State

struct BalloonConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 16, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_ram();
  MmioRig rig{memory, BalloonRig<SplitDriver>::device()};
  virtio::MmioTransport& device = rig.transport;

  // A request of each kind is under way, and an interrupt waits.
  void mutate() {
    MmioDriver driver(device);
    SplitDriver inflate(memory, Gpa(0x4'0000), kRingSize);
    SplitDriver stats(memory, Gpa(0xc'0000), kRingSize);
    driver.negotiate(SplitDriver::kFeatures | kAll);
    driver.set_up_queue(Balloon::kInflate, inflate);
    driver.set_up_queue(Balloon::kStats, stats);
    driver.driver_ok();
    rig.serve();
    inflate.add(std::vector<RingBuffer>{{kNumbers, 0x8000, false}});
    driver.notify(Balloon::kInflate);
    rig.serve(1);
    stats.add(std::vector<RingBuffer>{{kNumbers, 10, false}});
    stats.add(std::vector<RingBuffer>{{kNumbers, 10, false}});
    driver.notify(Balloon::kStats);
    rig.rung.pop_front();
    rig.serve(1);
    driver.put(MmioDriver::kConfig + 4, 3);
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioBalloon, DeviceConformance, BalloonConformanceRig);

}  // namespace
}  // namespace vmm::test

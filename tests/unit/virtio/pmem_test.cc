#include "devices/virtio/pmem.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "base/size.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_pmem.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Pmem;

constexpr std::uint16_t kRingSize = 16;
constexpr std::uint64_t kRequest = 0x20'0000, kAnswer = 0x20'1000;
constexpr std::uint32_t kNothing = 0xffff'ffff;
const GpaRange kWhere = *GpaRange::create(Gpa(GiB(4)), MiB(64));

template <typename Ring>
class PmemRig {
 public:
  PmemRig() {
    EXPECT_TRUE(driver.negotiate(Ring::kFeatures));
    EXPECT_TRUE(driver.set_up_queue(0, ring));
    driver.driver_ok();
    rig.serve();
  }
  Pmem& pmem() { return static_cast<Pmem&>(rig.transport.device()); }
  // A request of the driver's with a place for its answer.
  void put(std::uint32_t type = Pmem::kFlush, std::uint32_t size = 4, std::uint32_t room = 4) {
    const std::uint64_t offset = 16ULL * places++;
    EXPECT_TRUE(memory.write(Gpa(kRequest + offset), type));
    EXPECT_TRUE(memory.write(Gpa(kAnswer + offset), kNothing));
    std::vector<RingBuffer> buffers{{kRequest + offset, size, false}};
    if (room != 0) buffers.push_back({kAnswer + offset, room, true});
    ring.add(buffers);
    driver.notify(0);
    rig.serve();
  }
  void end(int error) {
    backend->end(error);
    pmem().completed();
  }
  std::uint32_t answer(std::uint64_t place) {
    return memory.read<std::uint32_t>(Gpa(kAnswer + 16 * place)).value();
  }
  bool broken() { return (driver.status() & virtio::kNeedsReset) != 0; }

  std::shared_ptr<ManualPmem> backend = std::make_shared<ManualPmem>();
  GuestMemory memory = make_ram();
  MmioRig rig{memory, std::make_unique<Pmem>("pmem0", kWhere, backend)};
  MmioDriver driver{rig.transport};
  Ring ring{memory, Gpa(0x8'0000), kRingSize};
  std::uint64_t places = 0;
};

template <typename Ring>
class PmemOn : public testing::Test, public PmemRig<Ring> {};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(PmemOn, Rings);

TYPED_TEST(PmemOn, Configuration_saysWhere) {
  EXPECT_EQ(this->driver.get(MmioDriver::kDeviceId), 27U);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig), 0U);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig + 4), 1U);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig + 8), MiB(64));
}

TYPED_TEST(PmemOn, Flush_isAnsweredWhenItIsDone) {
  this->put();
  EXPECT_EQ(this->backend->started, 1);
  EXPECT_FALSE(this->ring.take_used());
  this->end(0);
  EXPECT_EQ(this->ring.take_used()->written, 4U);
  EXPECT_EQ(this->answer(0), Pmem::kOk);
  EXPECT_EQ(this->driver.take_interrupts(), 1U);
  EXPECT_EQ(this->pmem().counters().flushes, 1U);
}

TYPED_TEST(PmemOn, FailedFlush_isAnError) {
  this->put();
  this->end(ENOSPC);
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_EQ(this->answer(0), Pmem::kIoError);
  EXPECT_EQ(this->pmem().counters().errors, 1U);
}

// What came while a flush was under way may have been written after it began.
TYPED_TEST(PmemOn, FlushesThatComeMeanwhile_shareTheNext) {
  this->put();
  this->put();
  this->put();
  EXPECT_EQ(this->backend->started, 1);
  this->end(EIO);
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_FALSE(this->ring.take_used());
  EXPECT_EQ(this->backend->started, 2);
  this->end(0);
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_EQ(this->answer(0), Pmem::kIoError);
  EXPECT_EQ(this->answer(1), Pmem::kOk);
  EXPECT_EQ(this->answer(2), Pmem::kOk);
  EXPECT_EQ(this->backend->started, 2);
}

TYPED_TEST(PmemOn, RequestsThatAreNone_areErrorsAtOnce) {
  this->put(1);
  this->put(0xffff'ffff);
  this->put(Pmem::kFlush, 3);
  for (std::uint64_t place = 0; place < 3; ++place) {
    EXPECT_TRUE(this->ring.take_used());
    EXPECT_EQ(this->answer(place), Pmem::kIoError);
  }
  EXPECT_EQ(this->backend->started, 0);
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(PmemOn, AnswerWithoutRoom_isNone) {
  this->put(Pmem::kFlush, 4, 0);
  this->put(Pmem::kFlush, 4, 3);
  this->end(0);
  this->end(0);
  EXPECT_EQ(this->ring.take_used()->written, 0U);
  EXPECT_EQ(this->ring.take_used()->written, 0U);
  EXPECT_FALSE(this->broken());
}

TYPED_TEST(PmemOn, BufferInItsOwnMemory_breaksTheRing) {
  this->ring.add(std::vector<RingBuffer>{{kWhere.base().value, 4, false}});
  this->driver.notify(0);
  this->rig.serve();
  EXPECT_TRUE(this->broken());
}

TYPED_TEST(PmemOn, Reset_doesNotWaitForAFlush) {
  this->put();
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->driver.status(), 0);
  this->end(0);
  EXPECT_EQ(this->answer(0), kNothing) << "nobody waits for it";
}

TYPED_TEST(PmemOn, FlushOfTheNextDriver_isItsOwn) {
  this->put();
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_TRUE(this->driver.negotiate(TypeParam::kFeatures));
  this->ring = TypeParam(this->memory, Gpa(0x8'0000), kRingSize);
  EXPECT_TRUE(this->driver.set_up_queue(0, this->ring));
  this->driver.driver_ok();
  this->put();
  EXPECT_EQ(this->backend->started, 1);
  this->end(0);  // of the first driver
  EXPECT_FALSE(this->ring.take_used());
  EXPECT_EQ(this->backend->started, 2);
  this->end(0);
  EXPECT_TRUE(this->ring.take_used());
}

TYPED_TEST(PmemOn, WaitingFlushes_areSavedAndMadeAnew) {
  this->put();
  this->put();
  const auto document = saved(this->rig.transport);
  const auto next = std::make_shared<ManualPmem>();
  MmioRig other(this->memory, std::make_unique<Pmem>("pmem0", kWhere, next));
  ASSERT_TRUE(restore_from(other.transport, document));
  EXPECT_EQ(saved(other.transport), document);
  EXPECT_EQ(next->started, 1);
  next->end(0);
  static_cast<Pmem&>(other.transport.device()).completed();
  EXPECT_TRUE(this->ring.take_used());
  EXPECT_TRUE(this->ring.take_used());
}

struct PmemConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 16, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_ram();
  MmioRig rig{memory, std::make_unique<Pmem>("pmem0", kWhere, std::make_shared<ManualPmem>())};
  virtio::MmioTransport& device = rig.transport;

  // A flush is under way, another one waits, and so does an interrupt.
  void mutate() {
    MmioDriver driver(device);
    SplitDriver ring(memory, Gpa(0x8'0000), kRingSize);
    driver.negotiate(SplitDriver::kFeatures);
    driver.set_up_queue(0, ring);
    driver.driver_ok();
    rig.serve();
    for (const std::uint32_t size : {4U, 4U, 1U}) {
      ring.add(std::vector<RingBuffer>{{kRequest, size, false}, {kAnswer, 4, true}});
    }
    driver.notify(0);
    rig.serve();
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioPmem, DeviceConformance, PmemConformanceRig);

}  // namespace
}  // namespace vmm::test

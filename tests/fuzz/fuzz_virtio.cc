// Any sequence of what a driver may do to a virtio device: registers, rings in guest memory, and
// requests that stay in flight over resets and restores (docs/virtio.md).
#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/kept_ram.h"
#include "tests/fuzz/program.h"
#include "tests/support/device_access.h"
#include "tests/support/virtio/fake_device.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::test {
namespace {

using fuzz::Program;
using fuzz::require;

constexpr std::uint64_t kRing = 0x8'0000;
constexpr std::uint16_t kQueue = 1;  // the fake device's larger one
constexpr std::uint16_t kSize = 16;

class Board {
 public:
  void step(Program& program) {
    const std::uint8_t operation = program.byte();
    switch (operation % 12) {
      case 0:
        return driver().put(std::uint64_t{4} * (program.byte() % 64), program.wide());
      case 1:
        return void(driver().get(std::uint64_t{4} * (program.byte() % 64)));
      case 2: {
        const std::size_t width = std::size_t{1} << (program.byte() % 4);
        const std::uint64_t at = MmioDriver::kConfig + program.byte();
        write_device(rig_->transport, at, width, program.wide());
        return void(read_device(rig_->transport, at, width));
      }
      case 3:
        return initialize(program.byte());
      case 4:
        return scribble(program);
      case 5:
        return add(program);
      case 6:
        driver().notify(program.byte() % 3);
        return void(rig_->serve(4));
      case 7:
        return void(rig_->serve(64));
      case 8:
        return fake().finish_kept();
      case 9:
        return move_elsewhere();  // takes as long as a hundred of the others
      case 10:
        fake().keep = (program.byte() & 1) != 0;
        fake().reset_at_once = (program.byte() & 1) != 0;
        return;
      case 11:
        if ((program.byte() & 1) != 0) return rig_->transport.reset();
        return fake().finish_reset();
    }
  }

  void check() {
    const virtio::CoreState state = rig_->transport.core().state();
    for (const virtio::QueueState& queue : state.queues) {
      require(queue.in_flight <= queue.size || !queue.enabled);
    }
    require(rig_->irq.level() == (driver().get(MmioDriver::kInterruptStatus) != 0));
    rig_->rung.resize(std::min<std::size_t>(rig_->rung.size(), 64));
  }

 private:
  MmioDriver driver() { return MmioDriver(rig_->transport); }
  FakeDevice& fake() { return dynamic_cast<FakeDevice&>(rig_->transport.device()); }

  void initialize(std::uint8_t how) {
    std::uint64_t features = virtio::kFeatureVersion1 | virtio::kFeatureIndirectDesc;
    if ((how & 1) != 0) features |= virtio::kFeatureRingPacked;
    if ((how & 2) != 0) features |= virtio::kFeatureEventIdx;
    if ((how & 4) != 0) features |= virtio::kFeatureRingReset;
    split_.reset();
    packed_.reset();
    if ((how & 1) != 0) {
      packed_.emplace(memory_, Gpa(kRing), kSize, (how & 2) != 0);
    } else {
      split_.emplace(memory_, Gpa(kRing), kSize, (how & 2) != 0);
    }
    MmioDriver d = driver();
    if (!d.negotiate(features)) return;  // a reset may be pending
    d.set_up_queue(kQueue, packed_ ? static_cast<RingMemory&>(*packed_) : *split_);
    d.driver_ok();
  }
  void scribble(Program& program) {
    constexpr std::array<std::uint64_t, 4> kAreas{0, 0x4000, 0x8000, 0x1'0000};
    const std::uint64_t at = kRing + kAreas[program.byte() % 4] + 2ULL * program.byte();
    require(memory_.write(Gpa(at), program.word()).has_value());
  }
  void add(Program& program) {
    const std::uint8_t shape = program.byte();
    std::vector<RingBuffer> buffers;
    for (int i = 0; i <= shape % 4; ++i) {
      buffers.push_back({0x10'0000 + 16ULL * program.word(), program.word(), (shape & 4) != 0});
    }
    if (split_) split_->add(buffers, (shape & 8) != 0);
    if (packed_) packed_->add(buffers, (shape & 8) != 0);
    if ((shape & 16) == 0) return;
    if (split_) split_->take_used();
    if (packed_) packed_->take_used();
  }
  // What one device saved, another one takes, and saves the same.
  void move_elsewhere() {
    if (++moves_ > 2) return;
    const auto document = [](const MmioRig& rig) {
      StateWriter writer;
      rig.transport.save(writer);
      return writer.document();
    };
    auto other = make_rig();
    const auto before = document(*rig_);
    require(other->transport.restore(StateReader(before)).has_value());
    require(document(*other) == before);
    rig_ = std::move(other);
  }
  std::unique_ptr<MmioRig> make_rig() {
    return std::make_unique<MmioRig>(memory_, std::make_unique<FakeDevice>("fake0"));
  }

  static const GuestMemory& ram() {
    static const GuestMemory memory = make_ram();
    return memory;
  }

  const GuestMemory& memory_ = fuzz::as_new(ram());
  std::unique_ptr<MmioRig> rig_ = make_rig();
  std::optional<SplitDriver> split_;
  std::optional<PackedDriver> packed_;
  int moves_ = 0;
};

}  // namespace
}  // namespace vmm::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::test::Board board;
  vmm::fuzz::Program program(data, size);
  for (int steps = 0; steps < 2000 && !program.ended(); ++steps) {
    board.step(program);
    board.check();
  }
  return 0;
}

// A virtio device on one of the transports with a driver that does anything: registers, rings in
// guest memory that it scribbles into, resets, and moves to another machine. What only one device
// understands comes from its fuzz target.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "devices/state_io.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/kept_ram.h"
#include "tests/fuzz/program.h"
#include "tests/support/device_access.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/pci_driver.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::fuzz {

// `Driver`: test::MmioDriver or test::PciDriver. The driver uses the first `kRingsInUse` queues.
template <typename Driver, std::uint16_t kRingsInUse = 3>
class VirtioBoard {
 public:
  using Factory = std::function<std::unique_ptr<virtio::Device>()>;
  static constexpr std::uint64_t kRings = 0x8'0000, kData = 0x20'0000;
  static constexpr std::uint16_t kPlaces = 16;

  // `memory` has the regions of test::make_ram(), and maybe more above; it is cleared, and
  // borrowed.
  explicit VirtioBoard(Factory make, const GuestMemory& memory = ram())
      : make_(std::move(make)), memory_(as_new(memory)) {
    rig_ = make_rig();
  }

  virtio::Device& device() { return rig_->transport.device(); }
  const GuestMemory& memory() const { return memory_; }

  // One operation that every device understands.
  void step(Program& program) {
    const std::uint8_t operation = program.byte();
    switch (operation % 10) {
      case 0:
      case 1:
        return access(program, operation % 10 == 0);
      case 2:
        return initialize(program.byte());
      case 3:
        return scribble(program);
      case 4:
      case 5:
        return add(program);
      case 6:
        return notify(program.byte());
      case 7:
        return void(rig_->serve(program.byte() % 64));
      case 8:
        if ((program.byte() & 3) != 0) return take_used();
        return rig_->transport.reset();
      case 9:
        if ((program.byte() & 7) == 0 && moves_ < kMostMoves) move_elsewhere();
        return;
    }
  }

  // Makes a request of the driver's own and rings; nothing happens when the ring is full.
  void request(std::uint8_t queue, const std::vector<test::RingBuffer>& buffers, bool indirect) {
    if (rings_.empty()) return;
    std::visit([&](auto& ring) { ring.add(buffers, indirect); }, rings_[queue % rings_.size()]);
    notify(queue);
  }

  void check() {
    for (const virtio::QueueState& queue : rig_->transport.core().state().queues) {
      require(queue.in_flight <= queue.size || !queue.enabled);
    }
    rig_->rung.resize(std::min<std::size_t>(rig_->rung.size(), 64));
  }

 private:
  using Ring = std::variant<test::SplitDriver, test::PackedDriver>;
  static constexpr std::uint64_t kRingSpan = test::RingMemory::kSpan;
  // A move takes as long as a hundred of the other operations, and says little again and again.
  static constexpr int kMostMoves = 2;

  static const GuestMemory& ram() {
    static const GuestMemory memory = test::make_ram();
    return memory;
  }
  Driver driver() { return Driver(rig_->transport); }
  std::unique_ptr<typename Driver::Rig> make_rig() {
    return std::make_unique<typename Driver::Rig>(memory_, make_());
  }

  void access(Program& program, bool write) {
    constexpr std::array<std::uint64_t, 6> kAreas{0,      0x100,  0x1000,
                                                  0x2000, 0x3000, test::PciDriver::kConfig};
    const std::uint64_t at = kAreas[program.byte() % kAreas.size()] + program.byte();
    const std::size_t width = std::size_t{1} << (program.byte() % 4);
    if (write) return test::write_device(rig_->transport, at, width, program.wide());
    (void)test::read_device(rig_->transport, at, width);
  }
  void notify(std::uint8_t queue) {
    driver().notify(static_cast<std::uint16_t>(queue % (rig_->transport.core().queues() + 1)));
    (void)rig_->serve(4);
  }
  void initialize(std::uint8_t how) {
    Driver d = driver();
    std::uint64_t features = d.offered();
    if ((how & 1) == 0) features &= ~virtio::kFeatureRingPacked;
    if ((how & 2) == 0) features &= ~virtio::kFeatureEventIdx;
    if ((how & 4) == 0) features &= ~(std::uint64_t{0x5555} << (how >> 4));
    rings_.clear();
    for (std::uint16_t i = 0;
         i < std::min<std::uint16_t>(rig_->transport.core().queues(), kRingsInUse); ++i) {
      const Gpa at(kRings + kRingSpan * i);
      if ((how & 1) != 0) {
        rings_.emplace_back(std::in_place_type<test::PackedDriver>, memory_, at, kPlaces,
                            (how & 2) != 0);
      } else {
        rings_.emplace_back(std::in_place_type<test::SplitDriver>, memory_, at, kPlaces,
                            (how & 2) != 0);
      }
    }
    if (!d.negotiate(features)) return;  // a reset may be pending
    for (std::uint16_t i = 0; i < rings_.size(); ++i) {
      std::visit([&](const test::RingMemory& ring) { d.set_up_queue(i, ring); }, rings_[i]);
    }
    d.driver_ok();
  }
  void scribble(Program& program) {
    constexpr std::array<std::uint64_t, 4> kAreas{0, 0x4000, 0x8000, 0x1'0000};
    const std::uint64_t at = kRings + kRingSpan * (program.byte() % kRingsInUse) +
                             kAreas[program.byte() % 4] + 2ULL * program.byte();
    require(memory_.write(Gpa(at), program.word()).has_value());
  }
  void add(Program& program) {
    const std::uint8_t shape = program.byte();
    std::vector<test::RingBuffer> buffers;
    for (int i = 0; i <= shape % 4; ++i) {
      const bool writable = (shape & 8) != 0 ? i > 0 : (shape & 4) != 0;
      buffers.push_back({kData + 16ULL * program.word(), program.word(), writable});
    }
    request(program.byte(), buffers, (shape & 16) != 0);
  }
  void take_used() {
    for (Ring& ring : rings_) {
      std::visit(
          [](auto& r) {
            for (int i = 0; i < kPlaces && r.take_used(); ++i) {
            }
          },
          ring);
    }
  }
  // What one device saved, another one takes.
  void move_elsewhere() {
    ++moves_;
    StateWriter writer;
    rig_->transport.save(writer);
    auto other = make_rig();
    require(other->transport.restore(StateReader(writer)).has_value());
    rig_ = std::move(other);
  }

  Factory make_;
  const GuestMemory& memory_;
  std::unique_ptr<typename Driver::Rig> rig_;
  std::vector<Ring> rings_;
  int moves_ = 0;
};

template <typename Board>
void run_steps(Board& board, Program& program) {
  for (int steps = 0; steps < 2000 && !program.ended(); ++steps) {
    board.step(program);
    board.check();
  }
}

// A target's whole input: the transport, then what `Board` is made to do on it.
template <template <typename Driver> typename Board>
void run_board(Program program) {
  if ((program.byte() & 1) != 0) {
    Board<test::PciDriver> board;
    run_steps(board, program);
  } else {
    Board<test::MmioDriver> board;
    run_steps(board, program);
  }
}

}  // namespace vmm::fuzz

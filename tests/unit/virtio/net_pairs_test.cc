// A network interface with several pairs of queues: VIRTIO 1.2, section 5.1.6.5.5.
#include <gtest/gtest.h>

#include <optional>

#include "devices/state_io.h"
#include "devices/virtio/net.h"
#include "tests/support/fakes/recording_net_backend.h"
#include "tests/support/frames.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "vmm/net/frame_pieces.h"

namespace vmm::test {
namespace {

using virtio::Net;

const MacAddress kOwn{{2, 0, 0, 0, 0, 1}};
const MacAddress kOther{{2, 0, 0, 0, 0, 2}};
constexpr std::uint64_t kWanted = Net::kMac | Net::kMrgRxbuf | Net::kCtrlVq;
constexpr std::uint16_t kRingSize = 16;
constexpr std::uint64_t kBuffers = 0x10'0000;
constexpr std::uint64_t kRings = 0x11'0000;

// A queue of the network that knows whether it takes part.
class OneOfSeveral final : public NetBackend {
 public:
  bool enabled = true;
  bool wanted = true;
  std::vector<Frame> sent;
  std::vector<Frame> waiting;

  void set_enabled(bool now) override { enabled = now; }
  bool send(const NetHeader&, std::span<const ::iovec> frame) override {
    Frame whole;
    for (const ::iovec& piece : frame) {
      const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
      whole.insert(whole.end(), bytes, bytes + piece.iov_len);
    }
    sent.push_back(whole);
    return true;
  }
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override {
    header = {};
    if (waiting.empty()) return std::nullopt;
    const Frame frame = waiting.front();
    waiting.erase(waiting.begin());
    return scatter(frame, into);
  }
  int ready_fd() const noexcept override { return -1; }
  void want_frames(bool now) override { wanted = now; }
};

class NetPairs : public testing::Test {
 protected:
  static constexpr std::size_t kPairs = 3;
  static constexpr std::uint16_t kControlQueue = 2 * kPairs;

  NetPairs() {
    std::vector<std::shared_ptr<NetBackend>> queues;
    for (auto& queue : network_) {
      queue = std::make_shared<OneOfSeveral>();
      queues.push_back(queue);
    }
    rig_.emplace(memory_, std::make_unique<Net>("net0", kOwn, queues));
    driver_.emplace(rig_->transport);
  }
  void start(std::uint64_t features = kWanted | Net::kMq) {
    for (std::uint16_t i = 0; i <= kControlQueue; ++i) {
      rings_[i].emplace(memory_, Gpa(kRings + i * SplitDriver::kSpan), kRingSize);
    }
    ASSERT_TRUE(driver_->negotiate(SplitDriver::kFeatures | features));
    for (std::uint16_t i = 0; i <= kControlQueue; ++i) {
      ASSERT_TRUE(driver_->set_up_queue(i, *rings_[i]));
    }
    driver_->driver_ok();
    rig_->serve();
  }
  Net& net() { return static_cast<Net&>(rig_->transport.device()); }
  void request(std::uint16_t queue, std::vector<RingBuffer> buffers) {
    rings_[queue]->add(buffers);
    driver_->notify(queue);
    rig_->serve();
  }
  static Frame frame() {
    Frame frame = ethernet(kOwn, kOther, 0x0800);
    frame.resize(60);
    return frame;
  }
  // The driver sends on that pair; whether the device took it.
  bool send(std::uint16_t pair) {
    const NetHeader header;
    EXPECT_TRUE(memory_.write(Gpa(kBuffers), std::as_bytes(std::span(&header, 1))));
    EXPECT_TRUE(memory_.write(Gpa(kBuffers + sizeof header), std::span<const std::byte>(frame())));
    const auto queue = static_cast<std::uint16_t>(2 * pair + 1);
    request(queue, {{kBuffers, sizeof header + 60, false}});
    return rings_[queue]->take_used().has_value();
  }
  // The network has a frame in that queue; whether the driver gets it there.
  bool hears(std::uint16_t pair) {
    const auto queue = static_cast<std::uint16_t>(2 * pair);
    request(queue, {{kBuffers + 0x1000, 2048, true}});
    network_[pair]->waiting.push_back(frame());
    if (network_[pair]->wanted) net().backend_ready(pair);
    rig_->serve();
    return rings_[queue]->take_used().has_value();
  }
  int set_pairs(std::uint16_t pairs, std::uint16_t queue = kControlQueue) {
    const std::array<std::uint8_t, 4> command{4, 0, static_cast<std::uint8_t>(pairs),
                                              static_cast<std::uint8_t>(pairs >> 8)};
    EXPECT_TRUE(memory_.write(Gpa(kBuffers), std::as_bytes(std::span(command))));
    EXPECT_TRUE(memory_.write<std::uint8_t>(Gpa(kBuffers + 0x100), 0xee));
    request(queue, {{kBuffers, 4, false}, {kBuffers + 0x100, 1, true}});
    EXPECT_TRUE(rings_[queue]->take_used().has_value());
    return memory_.read<std::uint8_t>(Gpa(kBuffers + 0x100)).value();
  }
  std::array<bool, kPairs> enabled() const {
    return {network_[0]->enabled, network_[1]->enabled, network_[2]->enabled};
  }

  GuestMemory memory_ = make_ram();
  std::array<std::shared_ptr<OneOfSeveral>, kPairs> network_;
  std::optional<MmioRig> rig_;
  std::optional<MmioDriver> driver_;
  std::array<std::optional<SplitDriver>, kControlQueue + 1> rings_;
};

TEST_F(NetPairs, Configuration_saysHowMany) {
  EXPECT_NE(driver_->offered() & Net::kMq, 0U);
  std::array<std::byte, 2> pairs{};
  net().read_config(8, pairs);
  EXPECT_EQ(pairs[0], std::byte{kPairs});
  EXPECT_EQ(net().queue_sizes().size(), 2 * kPairs + 1);
}

TEST_F(NetPairs, OnePair_isOnFromTheStart) {
  start();
  EXPECT_EQ(enabled(), (std::array{true, false, false}));
  EXPECT_TRUE(hears(0));
  EXPECT_FALSE(hears(1));
  EXPECT_TRUE(send(0));
}

TEST_F(NetPairs, PairsThatAreSwitchedOn_carryFramesOfTheirOwnQueue) {
  start();
  EXPECT_EQ(set_pairs(2), 0);
  EXPECT_EQ(enabled(), (std::array{true, true, false}));
  EXPECT_TRUE(hears(1));
  EXPECT_FALSE(hears(2));
  EXPECT_TRUE(send(1));
  EXPECT_EQ(network_[1]->sent.size(), 1U);
  EXPECT_TRUE(network_[0]->sent.empty());
  EXPECT_EQ(set_pairs(1), 0);
  EXPECT_EQ(enabled(), (std::array{true, false, false}));
  EXPECT_FALSE(network_[1]->wanted);
}

TEST_F(NetPairs, NumbersOfPairsThatCannotBe_areRefused) {
  start();
  EXPECT_EQ(set_pairs(0), 1);
  EXPECT_EQ(set_pairs(kPairs + 1), 1);
  EXPECT_EQ(set_pairs(0xffff), 1);
  EXPECT_EQ(set_pairs(kPairs), 0);
  EXPECT_EQ(enabled(), (std::array{true, true, true}));
}

TEST_F(NetPairs, DriverThatKnowsOnePair_hasItsControlQueueBehindIt) {
  start(kWanted);
  EXPECT_EQ(set_pairs(1, Net::kControl), 1) << "a command that it has not taken, but an answer";
  EXPECT_TRUE(hears(0));
  EXPECT_FALSE(send(1)) << "that queue is not there";
}

TEST_F(NetPairs, Reset_leavesOnePair) {
  start();
  EXPECT_EQ(set_pairs(3), 0);
  driver_->set_status(0);
  EXPECT_EQ(enabled(), (std::array{true, false, false}));
  EXPECT_EQ(net().state().pairs, 1);
}

TEST_F(NetPairs, State_isRestoredWithItsPairs) {
  start();
  EXPECT_EQ(set_pairs(2), 0);
  StateWriter saved;
  rig_->transport.save(saved);
  driver_->set_status(0);
  ASSERT_TRUE(rig_->transport.restore(StateReader(saved)));
  rig_->serve();
  EXPECT_EQ(enabled(), (std::array{true, true, false}));
  EXPECT_TRUE(hears(1));
}

TEST_F(NetPairs, StateOfAnotherNumberOfPairs_isRefused) {
  Net::State state;
  state.taken.resize(1);
  state.pairs = 0;
  EXPECT_FALSE(state.validate());
  state.pairs = 2;
  EXPECT_FALSE(state.validate());
  MmioRig single(memory_, std::make_unique<Net>("net0", kOwn, std::make_shared<OneOfSeveral>()));
  StateWriter saved;
  single.transport.save(saved);
  EXPECT_FALSE(rig_->transport.restore(StateReader(saved)));
}

TEST_F(NetPairs, Retired_givesAllQueuesBack) {
  net().retire();
  for (const auto& queue : network_) {
    EXPECT_EQ(queue.use_count(), 1);
    EXPECT_FALSE(queue->wanted);
  }
}

}  // namespace
}  // namespace vmm::test

#include "vmm/doorbells.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "devices/post_code.h"

namespace vmm {
namespace {

using ::testing::ElementsAre;

// No KVM behind it: it refuses each place, as a KVM may.
class DoorbellsTest : public testing::Test {
 protected:
  std::shared_ptr<Doorbells> make(std::vector<Doorbells::Source> sources = {}) {
    auto bells = board.add(2, std::move(sources));
    EXPECT_TRUE(bells) << bells.error().message();
    (*bells)->bind(DeviceRef(std::make_unique<PostCode>("device")),
                   [this](std::uint16_t queue) { rung.push_back(queue); });
    return *std::move(bells);
  }
  // Waits until the loop has seen what was ready.
  void drain() {
    for (int round = 0; round < 3; ++round) {
      std::promise<void> done;
      loop->post([&done] { done.set_value(); });
      done.get_future().wait();
    }
  }

  std::unique_ptr<EventLoop> loop = EventLoop::create().value();
  kvm::VmFd vm{UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)), 0, 0};
  std::vector<std::uint16_t> rung;  // by the loop's thread, read after drain()
  DoorbellBoard board{*loop, vm};
};

TEST_F(DoorbellsTest, Ring_reachesTheDevice) {
  const auto bells = make();
  ASSERT_TRUE(board.start());
  bells->ring(1);
  drain();
  EXPECT_THAT(rung, ElementsAre(1));
}

TEST_F(DoorbellsTest, RingsWhileTheGuestRests_waitAsOne) {
  const auto bells = make();
  bells->ring(0);
  bells->ring(0);
  drain();
  EXPECT_THAT(rung, ElementsAre());
  ASSERT_TRUE(board.start());
  drain();
  EXPECT_THAT(rung, ElementsAre(0));
}

// A guest moves a BAR faster than KVM changes a place.
TEST_F(DoorbellsTest, PlacesThatChangeFasterThanTheyAreTaken_waitAsOne) {
  const auto bells = make();
  std::promise<void> busy, go_on;
  loop->post([&] {
    busy.set_value();
    go_on.get_future().wait();
  });
  busy.get_future().wait();
  for (std::uint64_t address = 0; address < 1000; ++address) {
    bells->place({{.address = address, .width = 2}, {.address = address + 4, .width = 2}});
  }
  EXPECT_EQ(loop->posted(), 1U);
  go_on.set_value();
  drain();
  bells->place({});
  drain();
  EXPECT_EQ(loop->posted(), 0U);
}

TEST_F(DoorbellsTest, StartThatFails_leavesNothingRunning) {
  const UniqueFd file(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));  // epoll takes no files
  const auto good = make();
  make({{.fd = file.get(), .on_ready = [] {}}});
  EXPECT_FALSE(board.start());
  good->ring(0);
  drain();
  EXPECT_THAT(rung, ElementsAre());
  EXPECT_FALSE(board.start()) << "the second time, too";
}

}  // namespace
}  // namespace vmm

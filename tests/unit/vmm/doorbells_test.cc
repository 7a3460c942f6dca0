#include "vmm/doorbells.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "devices/post_code.h"
#include "vmm/poll_policy.h"

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
  DoorbellBoard board{{loop.get()}, vm};
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

// A device whose queues are polled when the loop finds that worth it.
class PolledDoorbellsTest : public DoorbellsTest {
 protected:
  std::shared_ptr<Doorbells> make_polled() {
    auto bells = board.add(2, {});
    EXPECT_TRUE(bells) << bells.error().message();
    (*bells)->bind(DeviceRef(std::make_unique<PostCode>("device")),
                   [this](std::uint16_t queue) { rung.push_back(queue); },
                   {.begin = [this](std::uint16_t) { return ++begun > 0; },
                    .poll =
                        [this](std::uint16_t) {
                          if (polled++ == 0 && on_first_poll) on_first_poll();
                          return false;
                        },
                    .end = [this](std::uint16_t) { ++ended; }});
    return *std::move(bells);
  }
  // Rings in quick succession until the loop has begun to poll.
  void ring_until_polled(const Doorbells& bells) {
    while (polled == 0) {
      bells.ring(0);
      std::this_thread::yield();
    }
  }
  std::atomic<int> begun{0}, ended{0}, polled{0};
  std::function<void()> on_first_poll;
};

bool has_two_cpus() {
  cpu_set_t cpus;
  return ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

TEST_F(PolledDoorbellsTest, LoneRing_isNotPolledFor) {
  const auto bells = make_polled();
  ASSERT_TRUE(board.start());
  drain();
  bells->ring(0);
  drain();
  EXPECT_THAT(rung, ElementsAre(0));
  EXPECT_EQ(begun, ended);
}

TEST_F(PolledDoorbellsTest, QueueThatIsPolled_isTakenBackBeforeTheLoopWaits) {
  if (!has_two_cpus()) GTEST_SKIP() << "polling needs a second CPU";
  const auto bells = make_polled();
  ASSERT_TRUE(board.start());
  ring_until_polled(*bells);
  while (ended != begun) std::this_thread::yield();
  EXPECT_GE(begun, 1);
}

TEST_F(PolledDoorbellsTest, QueueWhoseGuestStopsMeanwhile_isTakenBackWhenItRunsAgain) {
  if (!has_two_cpus()) GTEST_SKIP() << "polling needs a second CPU";
  const auto bells = make_polled();
  std::promise<void> stopped;
  on_first_poll = [&] { stopped.get_future().wait(); };
  ASSERT_TRUE(board.start());
  ring_until_polled(*bells);
  board.stop();
  stopped.set_value();
  drain();
  EXPECT_EQ(ended, begun - 1) << "nobody touches the device of a guest that rests";
  ASSERT_TRUE(board.start());
  while (ended != begun) std::this_thread::yield();
}

// A driver that has waited for the host has its next request at hand as soon as that has ended. The
// device does not listen to the descriptor while it is polled, so it hears it first.
TEST_F(PolledDoorbellsTest, QueueWhoseDeviceHasDoneSomething_isPolledFor) {
  if (!has_two_cpus()) GTEST_SKIP() << "polling needs a second CPU";
  const EventFd host = EventFd::create().value();
  std::atomic<int> heard{0}, begun_by_host{0};
  bool quiet = false, was_host = false;  // the loop's thread only, as the next
  const std::vector<Doorbells::Source> sources{{.fd = host.fd(), .on_ready = [&] {
                                                  was_host = true;
                                                  if (!quiet && host.take() != 0) ++heard;
                                                }}};
  const auto bells = board.add(2, sources).value();
  bells->bind(DeviceRef(std::make_unique<PostCode>("device")),
              [&](std::uint16_t) { was_host = false; },
              {.begin =
                   [&](std::uint16_t) {
                     if (was_host) ++begun_by_host;
                     return quiet = true;
                   },
               .poll = [](std::uint16_t) { return false; },
               .end = [&](std::uint16_t) { quiet = false; }});
  ASSERT_TRUE(board.start());
  for (int signals = 1; begun_by_host == 0; ++signals) {
    std::this_thread::sleep_for(2 * PollPolicy::kLong);
    host.signal();
    while (heard < signals) std::this_thread::yield();
    bells->ring(0);
  }
  loop->stop();
}

std::string this_thread() {
  std::array<char, 16> text{};
  ::pthread_getname_np(::pthread_self(), text.data(), text.size());
  return text.data();
}

// A machine with two threads for devices beside its own.
class ThreadsTest : public testing::Test {
 protected:
  std::shared_ptr<Doorbells> make(std::uint16_t queues, std::vector<std::uint32_t> threads,
                                  std::vector<Doorbells::Source> sources = {}) {
    auto bells = board.add(queues, std::move(sources), threads);
    EXPECT_TRUE(bells) << bells.error().message();
    return *std::move(bells);
  }
  // A ring may still be on its way: what a test's closures use ends after this.
  void end_threads() {
    for (EventLoop* loop : {io.get(), io1.get(), io2.get()}) loop->stop();
  }

  std::unique_ptr<EventLoop> io = EventLoop::create().value();
  std::unique_ptr<EventLoop> io1 = EventLoop::create("io1").value();
  std::unique_ptr<EventLoop> io2 = EventLoop::create("io2").value();
  kvm::VmFd vm{UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)), 0, 0};
  DoorbellBoard board{{io.get(), io1.get(), io2.get()}, vm};
};

TEST_F(ThreadsTest, QueuesTakeThemInTurn) {
  EXPECT_THAT(make(3, {})->threads(), ElementsAre(0, 0, 0));
  EXPECT_THAT(make(3, {2})->threads(), ElementsAre(2, 2, 2));
  EXPECT_THAT(make(5, {1, 2})->threads(), ElementsAre(1, 2, 1, 2, 1));
  EXPECT_THAT(make(2, {2, 0})->threads(), ElementsAre(2, 0));
  const std::vector<std::uint32_t> missing{1, 3};
  const auto refused = board.add(2, {}, missing);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("no I/O thread 3"));
}

TEST_F(ThreadsTest, EachQueueIsServedByItsOwn) {
  const EventFd host = EventFd::create().value();
  std::array<std::promise<std::string>, 3> served;
  std::promise<std::string> ready;
  const auto bells = make(3, {2, 0, 1},
                          {{.fd = host.fd(),
                            .on_ready =
                                [&] {
                                  (void)host.take();
                                  ready.set_value(this_thread());
                                },
                            .queue = 2}});
  bells->bind(DeviceRef(std::make_unique<PostCode>("device")),
              [&](std::uint16_t queue) { served[queue].set_value(this_thread()); });
  ASSERT_TRUE(board.start());
  for (std::uint16_t queue = 0; queue < 3; ++queue) bells->ring(queue);
  host.signal();
  EXPECT_EQ(served[0].get_future().get(), "io2");
  EXPECT_EQ(served[1].get_future().get(), "io");
  EXPECT_EQ(served[2].get_future().get(), "io1");
  EXPECT_EQ(ready.get_future().get(), "io1");
  end_threads();
}

TEST_F(ThreadsTest, EachPollsItsOwnQueues) {
  if (!has_two_cpus()) GTEST_SKIP() << "polling needs a second CPU";
  const auto bells = make(2, {1, 2});
  std::array<std::atomic<int>, 2> begun{}, polled{}, ended{};
  std::atomic<int> elsewhere{0};
  const auto note = [&](std::uint16_t queue, auto& counts) {
    if (this_thread() != (queue == 0 ? "io1" : "io2")) ++elsewhere;
    ++counts[queue];
  };
  bells->bind(DeviceRef(std::make_unique<PostCode>("device")), [](std::uint16_t) {},
              {.begin =
                   [&](std::uint16_t queue) {
                     note(queue, begun);
                     return true;
                   },
               .poll =
                   [&](std::uint16_t queue) {
                     note(queue, polled);
                     return false;
                   },
               .end = [&](std::uint16_t queue) { note(queue, ended); }});
  ASSERT_TRUE(board.start());
  for (std::uint16_t queue = 0; queue < 2; ++queue) {
    while (polled[queue] == 0) {
      bells->ring(queue);
      std::this_thread::yield();
    }
    while (ended[queue] != begun[queue]) std::this_thread::yield();
  }
  end_threads();
  EXPECT_EQ(elsewhere, 0);
}

}  // namespace
}  // namespace vmm

#include "vmm/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;

std::unique_ptr<EventLoop> new_loop() {
  auto loop = EventLoop::create();
  EXPECT_TRUE(loop) << loop.error().message();
  return std::move(*loop);
}

// Waits until everything that is due now has run.
void drain(EventLoop& loop) {
  std::promise<void> done;
  loop.call_at(steady_clock::now(), [&done] { done.set_value(); });
  done.get_future().wait();
}

TEST(EventLoop, CallbackRunsNotBeforeItsTime) {
  const auto loop = new_loop();
  const auto when = steady_clock::now() + milliseconds(5);
  std::promise<steady_clock::time_point> ran;
  loop->call_at(when, [&ran] { ran.set_value(steady_clock::now()); });
  EXPECT_GE(ran.get_future().get(), when);
}

TEST(EventLoop, CallbacksRunInTheOrderOfTheirTimes) {
  const auto loop = new_loop();
  const auto start = steady_clock::now() + milliseconds(20);
  std::vector<int> order;
  std::promise<void> done;
  loop->call_at(start + milliseconds(2), [&] {
    order.push_back(3);
    done.set_value();
  });
  loop->call_at(start, [&] { order.push_back(1); });
  loop->call_at(start + milliseconds(1), [&] { order.push_back(2); });
  done.get_future().wait();
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(EventLoop, CallbacksOfOneTimeRunInTheOrderOfTheirCalls) {
  const auto loop = new_loop();
  const auto when = steady_clock::now() + milliseconds(10);
  std::vector<int> order;
  std::promise<void> done;
  loop->call_at(when, [&] { order.push_back(1); });
  loop->call_at(when, [&] { order.push_back(2); });
  loop->call_at(when, [&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_THAT(order, ElementsAre(1, 2));
}

// The loop sleeps towards the far timer; the near one must wake it.
TEST(EventLoop, EarlierTimerOvertakesALaterOne) {
  const auto loop = new_loop();
  loop->call_at(steady_clock::now() + std::chrono::hours(1), [] { ADD_FAILURE(); });
  std::promise<void> near;
  loop->call_at(steady_clock::now() + milliseconds(1), [&near] { near.set_value(); });
  near.get_future().wait();
}

TEST(EventLoop, CancelledTimerDoesNotRun) {
  const auto loop = new_loop();
  const auto when = steady_clock::now() + milliseconds(5);
  const auto timer = loop->call_at(when, [] { ADD_FAILURE() << "a cancelled timer ran"; });
  loop->cancel(timer);
  std::promise<void> later;
  loop->call_at(when + milliseconds(1), [&later] { later.set_value(); });
  later.get_future().wait();
}

TEST(EventLoop, CancellingWhatHasRunOrNeverWasIsHarmless) {
  const auto loop = new_loop();
  const auto timer = loop->call_at(steady_clock::now(), [] {});
  drain(*loop);
  loop->cancel(timer);
  loop->cancel(timer + 1000);
  drain(*loop);
}

// No lock is held around a callback: it may use the loop itself.
TEST(EventLoop, CallbackMayArmAndCancel) {
  const auto loop = new_loop();
  const auto far = loop->call_at(steady_clock::now() + std::chrono::hours(1), [] {});
  std::promise<void> done;
  loop->call_at(steady_clock::now(), [&] {
    loop->cancel(far);
    loop->call_at(steady_clock::now(), [&] { done.set_value(); });
  });
  done.get_future().wait();
}

TEST(EventLoop, CallbacksRunOnTheThreadNamedIo) {
  const auto loop = new_loop();
  std::promise<std::string> name;
  loop->call_at(steady_clock::now(), [&name] {
    std::array<char, 16> text{};
    ::pthread_getname_np(::pthread_self(), text.data(), text.size());
    name.set_value(text.data());
  });
  EXPECT_EQ(name.get_future().get(), "io");
}

TEST(EventLoop, DestructionDropsWhatIsPending) {
  auto loop = new_loop();
  loop->call_at(steady_clock::now() + std::chrono::hours(1), [] { ADD_FAILURE(); });
  loop.reset();
}

TEST(EventLoop, DestructionWithoutATimerEnds) { new_loop().reset(); }

TEST(EventLoop, TimersOfManyThreadsAllRun) {
  const auto loop = new_loop();
  std::atomic<int> ran{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 100; ++n) loop->call_at(steady_clock::now(), [&ran] { ++ran; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  drain(*loop);
  EXPECT_EQ(ran, 400);
}

TEST(EventLoop, PostedCallsRunInTheirOrder) {
  const auto loop = new_loop();
  std::vector<int> order;
  std::promise<void> done;
  loop->post([&] { order.push_back(1); });
  loop->post([&] { order.push_back(2); });
  loop->post([&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST(EventLoop, PostedCallMayPost) {
  const auto loop = new_loop();
  std::promise<void> done;
  loop->post([&] { loop->post([&] { done.set_value(); }); });
  done.get_future().wait();
}

// A call that posts itself for ever must not keep a timer from running.
TEST(EventLoop, PostingForEverLeavesTimersTheirTurn) {
  const auto loop = new_loop();
  std::atomic<bool> stop{false};
  std::function<void()> again = [&] {
    if (!stop) loop->post(again);
  };
  loop->post(again);
  drain(*loop);
  stop = true;
  drain(*loop);
}

TEST(EventLoop, WatchedDescriptorIsReportedWhileItIsReady) {
  const auto loop = new_loop();
  const auto event = EventFd::create();
  ASSERT_TRUE(event);
  std::promise<int> twice;
  int calls = 0;
  const auto watch = loop->watch(event->fd(), EPOLLIN, [&](std::uint32_t events) {
    EXPECT_EQ(events, std::uint32_t{EPOLLIN});
    if (++calls < 2) return;  // nothing was taken: it is reported again
    (void)event->take();
    twice.set_value(calls);
  });
  ASSERT_TRUE(watch);
  event->signal();
  EXPECT_EQ(twice.get_future().get(), 2);
  loop->unwatch(*watch);
}

TEST(EventLoop, UnwatchedDescriptorIsNotReported) {
  const auto loop = new_loop();
  const auto event = EventFd::create();
  ASSERT_TRUE(event);
  const auto watch = loop->watch(event->fd(), EPOLLIN, [](std::uint32_t) { ADD_FAILURE(); });
  ASSERT_TRUE(watch);
  loop->unwatch(*watch);
  loop->unwatch(*watch);
  event->signal();
  drain(*loop);
}

TEST(EventLoop, WatchMayEndItself) {
  const auto loop = new_loop();
  const auto event = EventFd::create();
  ASSERT_TRUE(event);
  std::promise<void> done;
  std::atomic<EventLoop::WatchId> self{0};
  int calls = 0;
  const auto watch = loop->watch(event->fd(), EPOLLIN, [&](std::uint32_t) {
    if (self == 0) return;  // its number is not known yet
    loop->unwatch(self);
    if (++calls == 1) done.set_value();
  });
  ASSERT_TRUE(watch);
  self = *watch;
  event->signal();
  done.get_future().wait();
  drain(*loop);
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ChangedWatchKeepsQuiet) {
  const auto loop = new_loop();
  const auto event = EventFd::create();
  ASSERT_TRUE(event);
  std::promise<void> heard;
  const auto watch = loop->watch(event->fd(), 0, [&](std::uint32_t) {
    (void)event->take();
    heard.set_value();
  });
  ASSERT_TRUE(watch);
  event->signal();
  drain(*loop);
  loop->change_watch(*watch, EPOLLIN);
  heard.get_future().wait();
}

TEST(EventLoop, WhatCannotBeWatchedIsAnError) {
  const auto loop = new_loop();
  EXPECT_FALSE(loop->watch(-1, EPOLLIN, [](std::uint32_t) {}));
}

// Counts, and says that it has work for as long as it is told to.
struct CountingPoller final : Poller {
  bool watching() const override { return true; }
  bool poll() override {
    polls.fetch_add(1);
    return busy > 0 && busy-- > 0;
  }
  void rest() override { rests.fetch_add(1); }
  std::atomic<int> polls{0}, rests{0};
  std::atomic<int> busy{0};
};

TEST(EventLoop, PollerThatIsAdded_restsBeforeTheLoopWaits) {
  const auto loop = new_loop();
  const auto poller = std::make_shared<CountingPoller>();
  loop->add_poller(poller);
  drain(*loop);
  drain(*loop);
  EXPECT_GE(poller->rests, 1);
}

// Where little time passes between one event and the next, the loop looks instead of sleeping.
TEST(EventLoop, EventsInQuickSuccession_startPolling) {
  const auto loop = new_loop();
  const auto poller = std::make_shared<CountingPoller>();
  loop->add_poller(poller);
  cpu_set_t cpus;
  ASSERT_EQ(::sched_getaffinity(0, sizeof cpus, &cpus), 0);
  if (CPU_COUNT(&cpus) == 1) GTEST_SKIP() << "polling needs a second CPU";
  const EventFd bell = EventFd::create().value();
  ASSERT_TRUE(loop->watch(bell.fd(), EPOLLIN, [&](std::uint32_t) { (void)bell.take(); }));
  // Each ring wakes the loop when it has just gone to sleep, or is about to.
  while (poller->polls == 0) bell.signal();
  loop->stop();
  EXPECT_GE(poller->rests, 1);
}

TEST(EventLoop, LoopThatHasNothingToDo_doesNotPoll) {
  const auto loop = new_loop();
  const auto poller = std::make_shared<CountingPoller>();
  loop->add_poller(poller);
  for (int round = 0; round < 8; ++round) drain(*loop);  // timers are no reason
  EXPECT_EQ(poller->polls, 0);
}

TEST(EventLoop, PollerThatAlwaysHasWork_leavesDescriptorsTheirTurn) {
  const auto loop = new_loop();
  const auto poller = std::make_shared<CountingPoller>();
  poller->busy = std::numeric_limits<int>::max();
  loop->add_poller(poller);
  const EventFd bell = EventFd::create().value();
  std::atomic<int> heard{0};
  ASSERT_TRUE(loop->watch(bell.fd(), EPOLLIN, [&](std::uint32_t) {
    (void)bell.take();
    ++heard;
  }));
  for (int round = 1; round <= 100; ++round) {
    bell.signal();
    while (heard < round) std::this_thread::yield();
  }
  EXPECT_EQ(heard, 100);
}

TEST(EventLoop, PollerThatIsRemoved_isLetGo) {
  const auto loop = new_loop();
  auto poller = std::make_shared<CountingPoller>();
  const EventLoop::WatchId id = loop->add_poller(poller);
  drain(*loop);
  loop->remove_poller(id);
  drain(*loop);
  const int rests = poller->rests;
  drain(*loop);
  drain(*loop);
  EXPECT_EQ(poller->rests, rests);
  EXPECT_EQ(poller.use_count(), 1);
}

TEST(EventLoop, Settle_waitsForWhatHasBegun) {
  const auto loop = new_loop();
  std::promise<void> begun;
  std::promise<void> go_on;
  std::atomic<bool> over{false};
  loop->post([&] {
    begun.set_value();
    go_on.get_future().wait();
    over = true;
  });
  begun.get_future().wait();
  EXPECT_FALSE(loop->settle(milliseconds(1)));
  go_on.set_value();
  EXPECT_TRUE(loop->settle(std::chrono::minutes(1)));
  EXPECT_TRUE(over);
}

TEST(EventLoop, Settle_ofALoopThatNeverRanIsAtOnce) {
  const auto loop = new_loop();
  EXPECT_TRUE(loop->settle(milliseconds(0)));
}

}  // namespace
}  // namespace vmm

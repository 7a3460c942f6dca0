#include "devices/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace vmm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> texts(const std::vector<DeviceEvent>& events) {
  std::vector<std::string> all;
  for (const DeviceEvent& event : events) all.push_back(device_event_text(event));
  return all;
}

TEST(EventLog, TellsWhatHappened) {
  EventLog log(16);
  const std::uint16_t disk = log.number_of("disk0");
  const std::uint16_t net = log.number_of("net0");
  log.line(4, true);
  log.message(0xfee01000, 0x4021);
  log.interrupt(1, 0x21, 0x1004);
  log.interrupt(0, 0x30, 0);
  log.nmi(2, 0x2000);
  log.request(net, 3, 65535);
  log.answer(disk, 2, 12, 0x1'0000'0000);
  log.line(4, false);
  EXPECT_THAT(texts(log.last()),
              ElementsAre("irq gsi 4 raised", "irq message 0xfee01000 data 0x4021 vector 0x21",
                          "vcpu1 irq vector 0x21 rip 0x1004", "vcpu0 irq vector 0x30",
                          "vcpu2 irq nmi rip 0x2000", "net0 request queue 3 head 65535",
                          "disk0 answer queue 2 head 12 written 4294967296", "irq gsi 4 lowered"));
}

TEST(EventLog, TimesAndNumbersGoUp) {
  EventLog log(4);
  for (int i = 0; i < 4; ++i) log.line(1, i % 2 == 0);
  const auto events = log.last();
  ASSERT_EQ(events.size(), 4U);
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].number, i);
    EXPECT_GT(events[i].time, 0);
    if (i != 0) {
      EXPECT_GE(events[i].time, events[i - 1].time);
    }
  }
}

TEST(EventLog, TheOldestGoFirst) {
  EventLog log(5);  // of which four are used
  for (std::uint32_t gsi = 0; gsi < 6; ++gsi) log.line(gsi, true);
  EXPECT_THAT(texts(log.last()), ElementsAre("irq gsi 2 raised", "irq gsi 3 raised",
                                             "irq gsi 4 raised", "irq gsi 5 raised"));
  EXPECT_THAT(texts(log.last(1)), ElementsAre("irq gsi 5 raised"));
}

TEST(EventLog, WithoutRoom_onlyLiveIsTold) {
  std::vector<std::string> told;
  EventLog log(0, [&told](const DeviceEvent& event) { told.push_back(device_event_text(event)); });
  log.request(log.number_of("disk0"), 0, 1);
  EXPECT_THAT(told, ElementsAre("disk0 request queue 0 head 1"));
  EXPECT_THAT(log.last(), IsEmpty());
}

TEST(EventLog, NameOfAPlace_isForWhoIsToldAtOnce) {
  std::vector<std::string> told;
  EventLog log(2, [&told](const DeviceEvent& event) { told.push_back(device_event_text(event)); });
  EXPECT_TRUE(log.is_live());
  EXPECT_FALSE(EventLog(2).is_live());
  log.interrupt(1, 0x21, 0x1004, "idle+0x4");
  log.nmi(0, 0x2000, "work+0x0");
  log.nmi(0, 0x3000);
  EXPECT_THAT(told, ElementsAre("vcpu1 irq vector 0x21 rip 0x1004 <idle+0x4>",
                                "vcpu0 irq nmi rip 0x2000 <work+0x0>", "vcpu0 irq nmi rip 0x3000"));
  EXPECT_EQ(device_event_text(log.last().front()), "vcpu0 irq nmi rip 0x2000");
}

TEST(EventLog, DevicesOfOneNameAreOne) {
  EventLog log(2);
  EXPECT_EQ(log.number_of("a"), log.number_of("a"));
  EXPECT_NE(log.number_of("a"), log.number_of("b"));
}

// Whatever is read was written like that, by one thread.
TEST(EventLog, ManyThreads_mixNothingUp) {
  constexpr unsigned kWriters = 4;
  constexpr std::uint64_t kEach = 20000;
  EventLog log(8);
  std::atomic<unsigned> running{kWriters};
  std::vector<std::thread> writers;
  for (std::uint16_t i = 0; i < kWriters; ++i) {
    writers.emplace_back([&log, &running, i] {
      for (std::uint64_t n = 1; n <= kEach; ++n) {
        log.interrupt(i, static_cast<std::uint8_t>(i + 1), n << 8 | i);
      }
      --running;
    });
  }
  std::size_t seen = 0;
  const auto look = [&] {
    const auto events = log.last();
    EXPECT_TRUE(std::is_sorted(events.begin(), events.end(),
                               [](const auto& a, const auto& b) { return a.number < b.number; }));
    for (const DeviceEvent& event : events) {
      ++seen;
      ASSERT_EQ(event.kind, DeviceEventKind::kInterrupt);
      ASSERT_EQ(event.value, event.cpu + 1U);
      ASSERT_EQ(event.address & 0xff, event.cpu);
    }
  };
  while (running != 0) look();
  for (std::thread& writer : writers) writer.join();
  look();
  EXPECT_GT(seen, 0U);
}

}  // namespace
}  // namespace vmm

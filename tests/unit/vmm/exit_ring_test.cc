#include "vmm/trace/exit_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace vmm {
namespace {

ExitRecord access(std::uint64_t address, std::uint64_t value, bool is_write = true) {
  return {.rip = address + 1,
          .address = address,
          .value = value,
          .kind = 0,
          .width = 1,
          .is_write = is_write};
}

TEST(ExitRing, Last_tellsWhatWasRecorded) {
  ExitRing ring(8);
  ring.begin(access(0x3f8, 0x41));
  ring.finish({});
  ring.begin(access(0x3fd, 0, /*is_write=*/false));
  ring.finish(0x60);
  ring.begin({.rip = 7, .kind = 2});
  const auto records = ring.last();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].number, 0U);
  EXPECT_EQ(records[0].name(), "pio");
  EXPECT_EQ(records[0].address, 0x3f8U);
  EXPECT_EQ(records[0].value, 0x41U);
  EXPECT_EQ(records[0].rip, 0x3f9U);
  EXPECT_TRUE(records[0].is_write);
  EXPECT_EQ(records[0].width, 1);
  EXPECT_FALSE(records[1].is_write);
  EXPECT_EQ(records[1].value, 0x60U);
  EXPECT_EQ(records[2].name(), "hlt");
  EXPECT_EQ(records[2].duration, 0);  // it has not been handled yet
  EXPECT_FALSE(records[2].is_access());
}

TEST(ExitRing, Last_timesAreThoseOfTheClock) {
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  ExitRing ring(8);
  const auto before = now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ring.begin(access(1, 1));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ring.finish({});
  const auto after = now();
  const auto records = ring.last();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_GT(records[0].time, before + 15'000'000);
  EXPECT_LT(records[0].time, after);
  EXPECT_GT(records[0].duration, 4'000'000);
}

TEST(ExitRing, Last_keepsTheNewest) {
  ExitRing ring(8);
  for (std::uint64_t i = 0; i < 100; ++i) {
    ring.begin(access(i, i));
    ring.finish({});
  }
  const auto records = ring.last();
  ASSERT_EQ(records.size(), 7U);  // the eighth may be overwritten at any moment
  EXPECT_EQ(records.front().address, 93U);
  EXPECT_EQ(records.back().number, 99U);
  const auto two = ring.last(2);
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two.front().address, 98U);
}

TEST(ExitRing, WithoutRoom_keepsNothing) {
  const ExitRing ring(0);
  EXPECT_FALSE(ring.enabled());
  EXPECT_TRUE(ring.last().empty());
}

// What a reader gets is never put together from two exits.
TEST(ExitRing, Last_isWholeWhileOthersRecord) {
  ExitRing ring(16);
  ring.begin(access(0, 0));  // there is something to see, however late the other thread starts
  ring.finish({});
  std::atomic<bool> end{false};
  std::thread writer([&] {
    for (std::uint64_t i = 1; !end; ++i) {
      ring.begin(access(i, i * 3));
      ring.finish({});
    }
  });
  std::uint64_t seen = 0;
  for (int i = 0; i < 20'000; ++i) {
    for (const ExitRecord& record : ring.last()) {
      ASSERT_EQ(record.address, record.number);
      ASSERT_EQ(record.value, record.number * 3);
      ASSERT_EQ(record.rip, record.number + 1);
      ++seen;
    }
  }
  end = true;
  writer.join();
  EXPECT_GT(seen, 0U);
}

}  // namespace
}  // namespace vmm

#include "devices/bus.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>

#include "base/le.h"

namespace vmm {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

// Answers each byte with its offset plus a mark, and notes what it was asked.
class Probe final : public Device {
 public:
  struct Seen {
    bool write;
    std::uint64_t offset;
    std::uint64_t address;
    std::size_t width;
    std::uint64_t value;
    VcpuId vcpu;
    bool operator==(const Seen&) const = default;
  };
  explicit Probe(std::string id, std::uint8_t mark = 0) : id_(std::move(id)), mark_(mark) {}
  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override {
    for (std::size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(mark_ + access.offset + i);
    }
    seen.push_back({false, access.offset, access.address, data.size(), load_le(data), access.vcpu});
  }
  void write(const IoAccess& access, std::span<const std::byte> data) override {
    seen.push_back({true, access.offset, access.address, data.size(), load_le(data), access.vcpu});
  }
  void reset() override {}
  void save(StateWriter&) const override {}
  Result<void> restore(const StateReader&) override { return {}; }

  std::vector<Seen> seen;

 private:
  std::string id_;
  std::uint8_t mark_;
};

struct Fixture {
  explicit Fixture(BusKind kind = BusKind::kPio) : bus(kind) {}
  std::uint64_t read(std::uint64_t address, std::size_t width) {
    std::array<std::byte, 64> data;
    data.fill(std::byte{0x5a});
    claimed = bus.read(cache, address, std::span(data).first(width));
    return load_le(std::span(data).first(width));
  }
  void write(std::uint64_t address, std::size_t width, std::uint64_t value) {
    std::array<std::byte, 64> data{};
    store_le(std::span(data).first(width), value);
    claimed = bus.write(cache, address, std::span(data).first(width));
  }
  std::vector<Probe::Seen> take(const DeviceHandle<Probe>& device) {
    return device.with([](Probe& p) { return std::exchange(p.seen, {}); });
  }
  Bus bus;
  BusCache cache{VcpuId{3}};
  bool claimed = false;
};

TEST(Bus, Access_insideAWindow_reachesTheDeviceWithItsOffset) {
  Fixture f;
  auto device = make_device<Probe>("a");
  ASSERT_TRUE(f.bus.insert({.base = 0x3f8, .size = 8, .widths = {1, 2}}, device));
  EXPECT_EQ(f.read(0x3fa, 2), 0x0302U);
  EXPECT_TRUE(f.claimed);
  f.write(0x3ff, 1, 0xab);
  EXPECT_EQ(f.take(device), (std::vector<Probe::Seen>{{false, 2, 0x3fa, 2, 0x0302, VcpuId{3}},
                                                      {true, 7, 0x3ff, 1, 0xab, VcpuId{3}}}));
  EXPECT_EQ(f.bus.stats(), BusStats{});
}

TEST(Bus, AllOnes_coverEveryLength) {
  for (std::size_t length = 0; length <= 20; ++length) {
    std::array<std::byte, 21> data{};
    all_ones(std::span(data).first(length));
    for (std::size_t i = 0; i < data.size(); ++i) {
      EXPECT_EQ(data[i], i < length ? std::byte{0xff} : std::byte{0}) << length << ": " << i;
    }
  }
}

TEST(Bus, Access_toNothing_readsAllOnesAndDropsWritesAndIsCounted) {
  Fixture f;
  EXPECT_EQ(f.read(0x80, 4), 0xffff'ffffU);
  EXPECT_FALSE(f.claimed);
  f.write(0x80, 1, 1);
  EXPECT_FALSE(f.claimed);
  EXPECT_EQ(f.bus.stats(), (BusStats{.unclaimed_reads = 1, .unclaimed_writes = 1}));
}

TEST(Bus, Access_ofAWidthThatTheWindowRefuses_isAnsweredByTheBus) {
  Fixture f;
  auto device = make_device<Probe>("a");
  ASSERT_TRUE(f.bus.insert({.base = 0x70, .size = 4, .widths = {1}}, device));
  EXPECT_EQ(f.read(0x70, 2), 0xffffU);
  f.write(0x70, 4, 5);
  EXPECT_FALSE(f.claimed);
  EXPECT_TRUE(f.take(device).empty());
  EXPECT_EQ(f.bus.stats(), (BusStats{.refused_reads = 1, .refused_writes = 1}));
}

TEST(Bus, Access_ofAnOddWidth_isRefusedByEveryWindow) {
  Fixture f(BusKind::kMmio);
  auto device = make_device<Probe>("a");
  ASSERT_TRUE(f.bus.insert({.base = 0, .size = 16}, device));
  EXPECT_EQ(f.read(0, 3), 0xff'ffffU);
  EXPECT_EQ(f.bus.stats(), (BusStats{.refused_reads = 1}));
}

TEST(Bus, Access_ofNoBytes_doesNothing) {
  Fixture f;
  f.read(0, 0);
  EXPECT_TRUE(f.claimed);
  EXPECT_EQ(f.bus.stats(), BusStats{});
}

TEST(Bus, StraddlingAccess_isSplitAtTheEndsOfWindows) {
  Fixture f;
  auto low = make_device<Probe>("low", 0x10);
  auto high = make_device<Probe>("high", 0x80);
  ASSERT_TRUE(f.bus.insert({.base = 0x100, .size = 4}, low));
  ASSERT_TRUE(f.bus.insert({.base = 0x104, .size = 2}, high));
  EXPECT_EQ(f.read(0x102, 4), 0x8180'1312U);
  EXPECT_TRUE(f.claimed);
  EXPECT_EQ(f.read(0x105, 2), 0xff81U);  // one byte of the window, one of nothing
  EXPECT_FALSE(f.claimed);
  EXPECT_EQ(f.read(0xff, 2), 0x10ffU);  // nothing first
  f.write(0x102, 8, 0x8877'6655'4433'2211);
  EXPECT_EQ(f.take(low).back(), (Probe::Seen{true, 2, 0x102, 2, 0x2211, VcpuId{3}}));
  EXPECT_EQ(f.take(high).back(), (Probe::Seen{true, 0, 0x104, 2, 0x4433, VcpuId{3}}));
  EXPECT_EQ(f.bus.stats(), (BusStats{.unclaimed_reads = 2, .unclaimed_writes = 1}));
}

TEST(Bus, StraddlingAccess_overAWindowInItsMiddle_hasThreeParts) {
  Fixture f;
  auto device = make_device<Probe>("a", 0x40);
  ASSERT_TRUE(f.bus.insert({.base = 0x201, .size = 2}, device));
  EXPECT_EQ(f.read(0x200, 4), 0xff41'40ffU);
  EXPECT_EQ(f.bus.stats(), (BusStats{.unclaimed_reads = 2}));
}

TEST(Bus, LongAccess_isSplitIntoEights) {
  Fixture f(BusKind::kMmio);
  auto device = make_device<Probe>("a");
  ASSERT_TRUE(f.bus.insert({.base = 0x1000, .size = 0x100}, device));
  f.read(0x1010, 32);
  EXPECT_TRUE(f.claimed);
  const auto seen = f.take(device);
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_EQ(seen[3].offset, 0x28U);
  EXPECT_EQ(seen[3].width, 8U);
}

TEST(Bus, AddressZeroAndTheLastPort_work) {
  Fixture f;
  auto first = make_device<Probe>("first", 1);
  auto last = make_device<Probe>("last", 2);
  ASSERT_TRUE(f.bus.insert({.base = 0, .size = 1}, first));
  ASSERT_TRUE(f.bus.insert({.base = 0xffff, .size = 1}, last));
  EXPECT_EQ(f.read(0, 1), 1U);
  EXPECT_EQ(f.read(0xffff, 1), 2U);
  // Beyond the last port is nothing, and it is not port 0.
  EXPECT_EQ(f.read(0xffff, 2), 0xff02U);
  EXPECT_EQ(f.read(0x10000, 1), 0xffU);
  EXPECT_EQ(f.bus.stats(), (BusStats{.unclaimed_reads = 2}));
}

TEST(Bus, TheLastAddressOfAll_works) {
  Fixture f(BusKind::kMmio);
  auto first = make_device<Probe>("first", 1);
  auto last = make_device<Probe>("last", 2);
  ASSERT_TRUE(f.bus.insert({.base = 0, .size = 1}, first));
  ASSERT_TRUE(f.bus.insert({.base = kMax - 3, .size = 4}, last));
  EXPECT_EQ(f.read(kMax, 1), 5U);
  EXPECT_EQ(f.read(kMax - 3, 4), 0x0504'0302U);
  EXPECT_EQ(f.read(kMax - 1, 4), 0xffff'0504U);
  EXPECT_EQ(f.read(kMax - 7, 8), 0x0504'0302'ffff'ffffU);
  f.write(kMax, 2, 0x1234);
  EXPECT_EQ(f.take(last).back(), (Probe::Seen{true, 3, kMax, 1, 0x34, VcpuId{3}}));
  EXPECT_TRUE(f.take(first).empty());
  EXPECT_EQ(f.bus.stats(), (BusStats{.unclaimed_reads = 2, .unclaimed_writes = 1}));
}

TEST(Bus, AWindowOfAlmostEverything_works) {
  Fixture f(BusKind::kMmio);
  auto device = make_device<Probe>("a");
  ASSERT_TRUE(f.bus.insert({.base = 1, .size = kMax}, device));
  EXPECT_EQ(f.read(kMax, 1), 0xfeU);
  EXPECT_EQ(f.read(0, 2), 0x00ffU);
}

TEST(Bus, Insert_thatIsEmptyOrLeavesTheBusOrOverlaps_isRefused) {
  Fixture f;
  auto device = make_device<Probe>("first");
  ASSERT_TRUE(f.bus.insert({.base = 0x100, .size = 8}, device));
  const std::vector<Window> before = f.bus.windows();
  EXPECT_EQ(f.bus.insert({.base = 1, .size = 0}, device).error().code(), ErrorCode::kBadConfig);
  EXPECT_FALSE(f.bus.insert({.base = 0xffff, .size = 2}, device));
  EXPECT_FALSE(f.bus.insert({.base = 0x10000, .size = 1}, device));
  EXPECT_FALSE(f.bus.insert({.base = 2, .size = kMax}, device));
  EXPECT_FALSE(f.bus.insert({.base = 0x200, .size = 2, .offset = kMax}, device));
  for (const Window& w : {Window{.base = 0x107, .size = 1}, Window{.base = 0xff, .size = 2},
                          Window{.base = 0, .size = 0x10000}, Window{.base = 0x102, .size = 2}}) {
    const auto result = f.bus.insert(w, device);
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().what().find("'first'"), std::string::npos);
  }
  EXPECT_EQ(f.bus.windows(), before);
}

TEST(Bus, OneDevice_mayOwnSeveralWindows) {
  Fixture f;
  auto device = make_device<Probe>("kbd");
  ASSERT_TRUE(f.bus.insert({.base = 0x64, .size = 1, .offset = 4}, device));
  ASSERT_TRUE(f.bus.insert({.base = 0x60, .size = 1}, device));
  EXPECT_EQ(f.read(0x60, 1), 0U);
  EXPECT_EQ(f.read(0x64, 1), 4U);
}

TEST(Bus, Remove_takesOneWindowAway) {
  Fixture f;
  auto device = make_device<Probe>("a", 1);
  ASSERT_TRUE(f.bus.insert({.base = 0x10, .size = 2}, device));
  ASSERT_TRUE(f.bus.insert({.base = 0x20, .size = 2}, device));
  EXPECT_EQ(f.read(0x10, 1), 1U);
  ASSERT_TRUE(f.bus.remove(0x10));
  EXPECT_EQ(f.read(0x10, 1), 0xffU);
  EXPECT_EQ(f.read(0x20, 1), 1U);
  EXPECT_EQ(f.bus.remove(0x10).error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(f.bus.remove(0x21).error().code(), ErrorCode::kOutOfRange);
}

TEST(Bus, Move_happensInOneStep) {
  Fixture f;
  auto device = make_device<Probe>("bar", 1);
  ASSERT_TRUE(f.bus.insert({.base = 0x100, .size = 8, .widths = {1}, .offset = 2}, device));
  EXPECT_EQ(f.read(0x100, 1), 3U);
  ASSERT_TRUE(f.bus.move(0x100, 0x104));  // over itself
  EXPECT_EQ(f.read(0x100, 1), 0xffU);
  EXPECT_EQ(f.read(0x104, 1), 3U);
  EXPECT_EQ(f.bus.windows(),
            (std::vector<Window>{{.base = 0x104, .size = 8, .widths = {1}, .offset = 2}}));
  EXPECT_TRUE(f.bus.move(0x104, 0x104));
}

TEST(Bus, Move_thatCannotBe_leavesEverythingWhereItWas) {
  Fixture f;
  auto a = make_device<Probe>("a", 1);
  auto b = make_device<Probe>("b", 2);
  ASSERT_TRUE(f.bus.insert({.base = 0x100, .size = 8}, a));
  ASSERT_TRUE(f.bus.insert({.base = 0x200, .size = 8}, b));
  const std::vector<Window> before = f.bus.windows();
  EXPECT_FALSE(f.bus.move(0x100, 0x1f9));
  EXPECT_FALSE(f.bus.move(0x100, 0xfff9));
  EXPECT_FALSE(f.bus.move(0x101, 0x300));
  EXPECT_EQ(f.bus.windows(), before);
  EXPECT_EQ(f.read(0x100, 1), 1U);
}

TEST(Bus, TheCacheOfOneBus_servesAnotherOneRightly) {
  Bus first(BusKind::kPio);
  Bus second(BusKind::kPio);
  ASSERT_TRUE(first.insert({.base = 0x10, .size = 1}, make_device<Probe>("a", 1)));
  ASSERT_TRUE(second.insert({.base = 0x10, .size = 1}, make_device<Probe>("b", 2)));
  BusCache cache(VcpuId{0});
  std::array<std::byte, 1> data{};
  first.read(cache, 0x10, data);
  EXPECT_EQ(data[0], std::byte{1});
  second.read(cache, 0x10, data);
  EXPECT_EQ(data[0], std::byte{2});
}

TEST(Bus, ARemovedDevice_livesNoLongerThanTheCachesThatKnowIt) {
  Fixture f;
  std::weak_ptr<int> life;
  {
    class Mortal final : public Device {
     public:
      explicit Mortal(std::shared_ptr<int> l) : life_(std::move(l)) {}
      std::string_view id() const noexcept override { return "mortal"; }
      void read(const IoAccess&, std::span<std::byte>) override {}
      void write(const IoAccess&, std::span<const std::byte>) override {}
      void reset() override {}
      void save(StateWriter&) const override {}
      Result<void> restore(const StateReader&) override { return {}; }

     private:
      std::shared_ptr<int> life_;
    };
    auto token = std::make_shared<int>(1);
    life = token;
    ASSERT_TRUE(f.bus.insert({.base = 5, .size = 1}, make_device<Mortal>(token)));
  }
  f.read(5, 1);
  ASSERT_TRUE(f.bus.remove(5));
  EXPECT_FALSE(life.expired());
  f.read(5, 1);
  EXPECT_TRUE(life.expired());
}

TEST(Bus, Trace_seesEveryPart_andOnlyWhileItIsSet) {
  struct Line {
    bool write;
    std::uint64_t address;
    std::size_t width;
    std::uint64_t value;
    bool claimed;
    std::string device;
    bool operator==(const Line&) const = default;
  };
  Fixture f;
  std::vector<Line> lines;
  ASSERT_TRUE(f.bus.insert({.base = 0x10, .size = 1}, make_device<Probe>("a", 7)));
  f.read(0x10, 1);
  f.bus.set_trace([&](const BusTrace& t) {
    lines.push_back({t.is_write, t.address, t.width, t.value, t.claimed, std::string(t.device)});
  });
  f.read(0x10, 2);
  f.write(0x20, 4, 0x1234'5678);
  f.write(0x1ffff, 1, 9);
  f.bus.set_trace({});
  f.read(0x10, 1);
  EXPECT_EQ(lines, (std::vector<Line>{{false, 0x10, 1, 7, true, "a"},
                                      {false, 0x11, 1, 0xff, false, ""},
                                      {true, 0x20, 4, 0x1234'5678, false, ""},
                                      {true, 0x1ffff, 1, 9, false, ""}}));
}

// A device that changes the bus from inside of an access, as a PCI BAR write does.
TEST(Bus, ADevice_mayMoveItsOwnWindow) {
  class Mover final : public Device {
   public:
    explicit Mover(Bus& bus) : bus_(bus) {}
    std::string_view id() const noexcept override { return "mover"; }
    void read(const IoAccess&, std::span<std::byte> data) override { data[0] = std::byte{1}; }
    void write(const IoAccess& access, std::span<const std::byte> data) override {
      moved = bus_.move(access.address, load_le(data)).has_value();
    }
    void reset() override {}
    void save(StateWriter&) const override {}
    Result<void> restore(const StateReader&) override { return {}; }
    bool moved = false;

   private:
    Bus& bus_;
  };
  Fixture f;
  auto device = make_device<Mover>(f.bus);
  ASSERT_TRUE(f.bus.insert({.base = 0x10, .size = 2}, device));
  f.write(0x10, 2, 0x40);
  EXPECT_TRUE(device.with([](Mover& m) { return m.moved; }));
  EXPECT_EQ(f.read(0x40, 1), 1U);
  EXPECT_EQ(f.read(0x10, 1), 0xffU);
}

// Counts, without atomics, under the device's lock: ThreadSanitizer sees a call without the lock,
// and `present` sees an access that came after remove().
class Counter final : public Device {
 public:
  std::string_view id() const noexcept override { return "counter"; }
  void read(const IoAccess& access, std::span<std::byte> data) override {
    ++calls;
    if (!present) ++late;
    data[0] = static_cast<std::byte>(access.offset);
  }
  void write(const IoAccess&, std::span<const std::byte>) override {
    ++calls;
    if (!present) ++late;
  }
  void reset() override {}
  void save(StateWriter&) const override {}
  Result<void> restore(const StateReader&) override { return {}; }

  std::uint64_t calls = 0;
  std::uint64_t late = 0;
  bool present = false;
};

// An access that waits for the device's lock while its window goes away is an access to nothing.
TEST(Bus, AWindowThatGoesWhileAnAccessWaitsForItsDevice_isNotReached) {
  constexpr int kRounds = 20;
  Bus bus(BusKind::kMmio);
  auto device = make_device<Counter>();
  int claimed = 0;
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_TRUE(bus.insert({.base = 0x1000, .size = 1}, device));
    std::atomic<bool> started{false};
    std::thread vcpu;
    device.with([&](Counter&) {
      vcpu = std::thread([&] {
        BusCache cache(VcpuId{0});
        std::array<std::byte, 1> data{};
        started = true;
        claimed += bus.read(cache, 0x1000, data) ? 1 : 0;
      });
      while (!started) std::this_thread::yield();
      // Long enough to get as far as the lock, as a rule: it can fail only when it does.
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ASSERT_TRUE(bus.remove(0x1000));
    });
    vcpu.join();
  }
  EXPECT_EQ(claimed, 0);
  EXPECT_EQ(device.with([](Counter& c) { return c.calls; }), 0U);
}

TEST(Bus, ChangesUnderConcurrentAccesses_loseNothingAndReachNoRemovedWindow) {
  constexpr int kRounds = 1500;
  Bus bus(BusKind::kMmio);
  auto fixed = make_device<Counter>();
  auto guest = make_device<Counter>();
  fixed.with([](Counter& c) { c.present = true; });
  ASSERT_TRUE(bus.insert({.base = 0x1000, .size = 0x10}, fixed));

  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> missed{0};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::thread> vcpus;
  for (std::uint32_t i = 0; i < 3; ++i) {
    vcpus.emplace_back([&, i] {
      BusCache cache(VcpuId{i});
      std::array<std::byte, 1> data{};
      std::uint64_t turn = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        if (!bus.read(cache, 0x1003, data) || data[0] != std::byte{3}) ++missed;
        ++hits;
        const std::uint64_t base = turn++ % 2 == 0 ? 0x2000 : 0x3000;
        if (bus.read(cache, base + 5, data) && data[0] != std::byte{5}) ++missed;
        bus.write(cache, base, data);
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    guest.with([](Counter& c) { c.present = true; });
    ASSERT_TRUE(bus.insert({.base = 0x2000, .size = 0x10}, guest));
    ASSERT_TRUE(bus.move(0x2000, 0x3000));
    ASSERT_FALSE(bus.move(0x3000, 0x0ff8));
    ASSERT_TRUE(bus.remove(0x3000));
    guest.with([](Counter& c) { c.present = false; });
  }
  while (hits < 100) std::this_thread::yield();
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();

  EXPECT_EQ(missed, 0U);
  EXPECT_EQ(guest.with([](Counter& c) { return c.late; }), 0U);
  EXPECT_EQ(fixed.with([](Counter& c) { return c.calls; }), hits.load());
}

}  // namespace
}  // namespace vmm

#include "vmm/msi_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace vmm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr MsiMessage kA{.address = 0xfee0'0000, .data = 0x41};
constexpr MsiMessage kB{.address = 0xfee0'1000, .data = 0x42};
constexpr std::uint32_t kFirst = 24;

kvm::GsiRoute route_to(std::uint32_t gsi, const MsiMessage& message) {
  return {.gsi = gsi, .is_msi = true, .msi_address = message.address, .msi_data = message.data};
}

// A KVM that remembers. An eventfd that was attached is never read, as KVM would: its count tells
// how often it was signalled.
class MsiRoutesTest : public testing::Test {
 protected:
  struct Attached {
    int fd = -1;
    std::uint32_t gsi = 0;
  };

  std::unique_ptr<MsiRoutes> make(std::size_t gsis = 8) {
    return std::make_unique<MsiRoutes>(
        MsiRoutes::Host{.signal = [this](const MsiMessage& m) { signalled.push_back(m); },
                        .set_routes = [this](auto routes) -> Result<void> {
                          ++tables;
                          if (refuse) return fail(ErrorCode::kResource, "no");
                          table.assign(routes.begin(), routes.end());
                          if (on_table) on_table();
                          return {};
                        },
                        .attach = [this](int fd, std::uint32_t gsi) -> Result<void> {
                          if (refuse_irqfds) return fail(ErrorCode::kResource, "no");
                          attached.push_back({fd, gsi});
                          return {};
                        },
                        .first_gsi = kFirst,
                        .gsis = gsis},
        *loop);
  }
  // Waits until the loop has done what was posted.
  void drain() {
    for (int round = 0; round < 2; ++round) {
      std::promise<void> done;
      loop->post([&done] { done.set_value(); });
      done.get_future().wait();
    }
  }
  void send(MsiRoute& route, const MsiMessage& message, std::uint32_t times) {
    for (std::uint32_t i = 0; i < times; ++i) route.send(message);
  }
  // Sends until the route is in place, and forgets that.
  void settle(MsiRoute& route, const MsiMessage& message) {
    send(route, message, MsiRoutes::kWorth);
    drain();
    signalled.clear();
  }
  static std::uint64_t count(int fd) {
    std::uint64_t value = 0;
    return ::read(fd, &value, sizeof value) == sizeof value ? value : 0;
  }

  std::unique_ptr<EventLoop> loop = EventLoop::create().value();
  std::vector<MsiMessage> signalled;  // by KVM_SIGNAL_MSI
  std::vector<kvm::GsiRoute> table;
  std::vector<Attached> attached;
  std::function<void()> on_table;
  int tables = 0;
  bool refuse = false;
  bool refuse_irqfds = false;
};

TEST_F(MsiRoutesTest, FewMessages_areSignalledWithoutARoute) {
  const auto routes = make();
  const auto route = routes->make_route();
  send(*route, kA, MsiRoutes::kWorth - 1);
  drain();
  EXPECT_EQ(signalled.size(), MsiRoutes::kWorth - 1);
  EXPECT_EQ(tables, 0);
}

TEST_F(MsiRoutesTest, ManyMessages_getAnIrqfd) {
  const auto routes = make();
  const auto route = routes->make_route();
  settle(*route, kA);
  EXPECT_THAT(table, ElementsAre(route_to(kFirst, kA)));
  ASSERT_EQ(attached.size(), 1U);
  EXPECT_EQ(attached[0].gsi, kFirst);
  send(*route, kA, 3);
  EXPECT_EQ(count(attached[0].fd), 3U);
  EXPECT_THAT(signalled, IsEmpty());
}

TEST_F(MsiRoutesTest, ChangedMessage_isSignalledAtOnceAndNeverTakesTheOldRoute) {
  const auto routes = make();
  const auto route = routes->make_route();
  settle(*route, kA);
  route->send(kB);
  EXPECT_THAT(signalled, ElementsAre(kB));
  EXPECT_EQ(count(attached[0].fd), 0U);
}

TEST_F(MsiRoutesTest, ChangedMessage_takesOverTheGsi) {
  const auto routes = make();
  const auto route = routes->make_route();
  settle(*route, kA);
  settle(*route, kB);
  EXPECT_THAT(table, ElementsAre(route_to(kFirst, kB)));
  EXPECT_EQ(attached.size(), 1U) << "the irqfd stays on its GSI";
  route->send(kB);
  EXPECT_EQ(count(attached[0].fd), 1U);
}

// The message changes to another and back while KVM is being told of the other.
TEST_F(MsiRoutesTest, MessageThatChangesWhileKvmIsTold_isSignalled) {
  const auto routes = make();
  const auto route = routes->make_route();
  settle(*route, kA);
  on_table = [&] {
    on_table = nullptr;
    route->send(kA);
    route->send(kA);
  };
  settle(*route, kB);
  signalled.clear();
  route->send(kA);
  EXPECT_THAT(signalled, ElementsAre(kA));
  EXPECT_EQ(count(attached[0].fd), 0U);
}

TEST_F(MsiRoutesTest, MessageThatChangesEachTime_costsKvmNothing) {
  const auto routes = make();
  const auto route = routes->make_route();
  for (int i = 0; i < 1000; ++i) route->send(i % 2 == 0 ? kA : kB);
  drain();
  EXPECT_EQ(signalled.size(), 1000U);
  EXPECT_EQ(tables, 0);
}

TEST_F(MsiRoutesTest, VectorWithoutAGsi_goesOnWithSignals) {
  const auto routes = make(1);
  const auto first = routes->make_route(), second = routes->make_route();
  settle(*first, kA);
  settle(*second, kB);
  second->send(kB);
  EXPECT_THAT(signalled, ElementsAre(kB));
  EXPECT_THAT(table, ElementsAre(route_to(kFirst, kA)));
}

TEST_F(MsiRoutesTest, GsiOfAVectorThatIsGone_isTheNextOnes) {
  const auto routes = make(1);
  auto first = routes->make_route();
  settle(*first, kA);
  first.reset();
  const auto second = routes->make_route();
  settle(*second, kB);
  EXPECT_THAT(table, ElementsAre(route_to(kFirst, kB)));
}

TEST_F(MsiRoutesTest, MessageToNoLocalApic_staysOutOfTheTable) {
  const auto routes = make();
  const auto good = routes->make_route(), bad = routes->make_route();
  settle(*bad, {.address = 0x1'fee0'0000, .data = 0x41});
  settle(*good, kA);
  EXPECT_THAT(table, ElementsAre(route_to(kFirst, kA)));
}

TEST_F(MsiRoutesTest, KvmThatRefusesTheTable_getsSignals) {
  const auto routes = make();
  const auto route = routes->make_route();
  refuse = true;
  settle(*route, kA);
  route->send(kA);
  EXPECT_THAT(signalled, ElementsAre(kA));
  EXPECT_EQ(tables, 1) << "it is not asked again and again";
}

TEST_F(MsiRoutesTest, KvmThatRefusesIrqfds_getsSignals) {
  const auto routes = make();
  const auto route = routes->make_route();
  refuse_irqfds = true;
  settle(*route, kA);
  route->send(kA);
  EXPECT_THAT(signalled, ElementsAre(kA));
}

TEST_F(MsiRoutesTest, KvmWithoutIrqfds_hasNoRoutes) {
  const auto routes = make(0);
  EXPECT_EQ(routes->make_route(), nullptr);
}

}  // namespace
}  // namespace vmm

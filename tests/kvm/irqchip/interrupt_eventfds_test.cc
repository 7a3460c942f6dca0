// Interrupts that are raised by a descriptor, as another process would (tests/guests/
// interrupt_eventfds.S).
#include "vmm/interrupt_eventfd.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <string>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "vmm/run_until.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm {
namespace {

DECLARE_GUEST(interrupt_eventfds);

constexpr std::uint32_t kEdge = 10, kLevel = 11;  // pins
constexpr Gpa kEdges{0x2000}, kLevels{0x2004};
constexpr std::chrono::minutes kEnough{1};

std::shared_ptr<EventFd> eventfd() { return std::make_shared<EventFd>(EventFd::create().value()); }

class InterruptEventFdKvm : public ::testing::TestWithParam<IrqchipMode> {
 protected:
  void SetUp() override {
    auto created = Vm::create(config());
    if (!created && (created.error().code() == ErrorCode::kNoKvm ||
                     created.error().code() == ErrorCode::kUnsupported)) {
      GTEST_SKIP() << "needs KVM with this irqchip: " << created.error().message();
    }
    ASSERT_TRUE(created) << created.error().message();
    vm = *std::move(created);
    ASSERT_TRUE(says("r"));
  }
  VmConfig config() const {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = GetParam();
    config.boot =
        FlatBoot{.image = guest_code(guest_interrupt_eventfds_begin, guest_interrupt_eventfds_end)};
    config.interrupt_eventfds = {{.irq = kEdge, .trigger = edge, .resample = {}},
                                 {.irq = kLevel, .trigger = level, .resample = resample}};
    return config;
  }
  // The guest runs until it has said that.
  bool says(const std::string& text) {
    auto stopped = vm->run_until({UntilConsole{text}}, kEnough);
    return stopped && stopped->met.has_value();
  }
  std::uint32_t count(Gpa at) const { return vm->memory().read<std::uint32_t>(at).value(); }
  // Waits for the signal.
  static bool signalled(const EventFd& fd) {
    pollfd one{.fd = fd.fd(), .events = POLLIN, .revents = 0};
    return poll(&one, 1, 60'000) == 1 && fd.take() != 0;
  }
  // The end of an interrupt may reach us with the next exit only.
  bool ends() { return says(".") && signalled(*resample); }
  static bool silent(const EventFd& fd) { return fd.take() == 0; }

  const std::shared_ptr<EventFd> edge = eventfd(), level = eventfd(), resample = eventfd();
  std::unique_ptr<Vm> vm;
};
INSTANTIATE_TEST_SUITE_P(Everywhere, InterruptEventFdKvm,
                         ::testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                           IrqchipMode::kUser),
                         test::mode_name);

TEST_P(InterruptEventFdKvm, Edge_comesForEachSignal) {
  for (std::uint32_t signals = 1; signals <= 3; ++signals) {
    edge->signal();
    ASSERT_TRUE(says("e"));
    EXPECT_EQ(count(kEdges), signals);
  }
  ASSERT_TRUE(says(".....")) << "and it goes on";
  EXPECT_EQ(count(kEdges), 3U);
  EXPECT_EQ(count(kLevels), 0U);
}

TEST_P(InterruptEventFdKvm, Level_fallsAtItsEndAndSaysSo) {
  for (std::uint32_t signals = 1; signals <= 3; ++signals) {
    EXPECT_TRUE(silent(*resample));
    level->signal();
    ASSERT_TRUE(says("l"));
    EXPECT_TRUE(ends());
    ASSERT_TRUE(says("....."));
    EXPECT_EQ(count(kLevels), signals) << "once for each signal";
  }
}

// Whoever still has cause then raises it again.
TEST_P(InterruptEventFdKvm, Level_raisedAgainWhenToldComesAgain) {
  for (std::uint32_t round = 1; round <= 5; ++round) {
    level->signal();
    ASSERT_TRUE(says("l"));
    ASSERT_TRUE(ends());
    EXPECT_EQ(count(kLevels), round);
  }
}

TEST_P(InterruptEventFdKvm, SignalledBeforeTheGuestStarts_isNotLost) {
  vm.reset();
  level->signal();
  edge->signal();
  vm = Vm::create(config()).value();
  ASSERT_TRUE(says("r"));
  // KVM's chips ask again when the guest unmasks the pin.
  for (int i = 0; i < 1000 && count(kLevels) == 0; ++i) {
    if (resample->take() != 0) level->signal();
    ASSERT_TRUE(says("."));
  }
  EXPECT_EQ(count(kLevels), 1U);
  EXPECT_TRUE(ends());
}

TEST_P(InterruptEventFdKvm, PutBack_theOtherSideIsTold) {
  const auto before = vm->snapshot();
  ASSERT_TRUE(before) << before.error().message();
  level->signal();
  ASSERT_TRUE(says("l"));
  ASSERT_TRUE(ends());
  const auto done = vm->reset_to(*before);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_TRUE(signalled(*resample)) << "it may have cause";
  level->signal();
  ASSERT_TRUE(says("l"));
  EXPECT_EQ(count(kLevels), 1U);
}

TEST_P(InterruptEventFdKvm, Clone_hasItsOwn) {
  const auto raise = eventfd(), again = eventfd();
  auto clone = vm->clone([&](VmConfig& config) -> Result<void> {
    config.interrupt_eventfds = {{.irq = kLevel, .trigger = raise, .resample = again}};
    return {};
  });
  ASSERT_TRUE(clone) << clone.error().message();
  EXPECT_TRUE(signalled(*again)) << "it may have cause there";
  vm = *std::move(clone);
  level->signal();  // the original's
  ASSERT_TRUE(says("....."));
  EXPECT_EQ(count(kLevels), 0U);
  raise->signal();
  ASSERT_TRUE(says("l"));
  EXPECT_TRUE(says(".") && signalled(*again));
}

TEST(InterruptEventFd, WhatCannotBeIsRefused) {
  VmConfig config;
  config.interrupt_eventfds = {{.irq = 24, .trigger = eventfd(), .resample = {}},
                               {.irq = 2, .trigger = eventfd(), .resample = {}},
                               {}};
  config.irqchip = IrqchipMode::kNone;
  const auto vm = Vm::create(config);
  ASSERT_FALSE(vm);
  const std::string text = vm.error().message();
  EXPECT_NE(text.find("eventfd 0 is for line 24: choose 0 to 23, but not 2"), text.npos) << text;
  EXPECT_NE(text.find("eventfd 1 is for line 2:"), text.npos) << text;
  EXPECT_NE(text.find("eventfd 2 is none"), text.npos) << text;
  EXPECT_NE(text.find("need interrupt controllers"), text.npos) << text;
}

}  // namespace
}  // namespace vmm

// Timers, whoever plays the interrupt controllers: an HPET beside a PIT (tests/guests/timers.S),
// one that leaves its CPU no time (tests/guests/tick_flood.S).
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm {
namespace {

DECLARE_GUEST(timers);
DECLARE_GUEST(tick_flood);

class TimersKvm : public testing::TestWithParam<IrqchipMode> {};
INSTANTIATE_TEST_SUITE_P(Local, TimersKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         test::mode_name);

TEST_P(TimersKvm, TakeEachOthersPlaces) {
  constexpr std::uint32_t kPassed = 1;
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = GetParam();
  config.boot = FlatBoot{.image = guest_code(guest_timers_begin, guest_timers_end)};
  const auto [vm, stop] = test::run_to_its_end(std::move(config));
  if (!vm) return;
  const auto log = vm->memory().read<std::array<char, 16>>(Gpa(0x2000)).value();
  EXPECT_STREQ(log.data(), "pqhro");
  EXPECT_TRUE(stop.reason == StopReason::kDebugExit && stop.value == kPassed) << stop.detail << '\n'
                                                                              << stop.report;

  // The flight recorder has the lines that are driven here, and the vectors that are given away
  // here: KVM's own local APICs tell of none, its PIC neither.
  std::set<std::uint64_t> lines, vectors;
  for (const DeviceEvent& event : vm->last_events()) {
    if (event.kind == DeviceEventKind::kLine) lines.insert(event.address);
    if (event.kind == DeviceEventKind::kInterrupt) vectors.insert(event.value);
  }
  constexpr std::uint64_t kPic = 0x20, kPin = 0x30;
  EXPECT_TRUE(lines.contains(20));
  EXPECT_EQ(vectors.contains(kPic), GetParam() != IrqchipMode::kKernel);
  EXPECT_EQ(vectors.contains(kPin), GetParam() == IrqchipMode::kUser);
}

// Whether KVM executes the guest's code or the interpreter.
class TickFloodKvm : public testing::TestWithParam<Toggle> {};
INSTANTIATE_TEST_SUITE_P(Local, TickFloodKvm, testing::Values(Toggle::kOff, Toggle::kOn),
                         [](const auto& with) {
                           return with.param == Toggle::kOn ? "Interpreted" : "InKvm";
                         });

TEST_P(TickFloodKvm, LeavesTheGuestTimeForItsWork) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kUser;
  config.boot = FlatBoot{.image = guest_code(guest_tick_flood_begin, guest_tick_flood_end)};
  config.quirks.push_back({.name = "interpret-kernel", .value = GetParam()});
  const auto [vm, stop] = test::run_to_its_end(std::move(config));
  if (!vm) return;
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail << '\n' << stop.report;
  EXPECT_GT(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), 1U);
}

}  // namespace
}  // namespace vmm

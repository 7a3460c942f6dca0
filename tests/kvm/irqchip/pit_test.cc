// A PIT's modes as a guest counts them, whoever plays the PIT (tests/guests/pit_modes.S).
#include <gtest/gtest.h>

#include <array>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm {
namespace {

DECLARE_GUEST(pit_modes);

constexpr std::uint16_t kCount = 20'000;
constexpr std::size_t kTerminalCount = 0, kRateGenerator = 2, kSquareWave = 3;

// What the guest leaves for each mode.
struct Seen {
  std::uint16_t held, held_again;
  std::uint8_t output_before, output_at_the_end;
  std::uint8_t was_low, was_high;
  std::uint16_t most;
  std::array<std::uint8_t, 6> unused;
};
static_assert(sizeof(Seen) == 16);

class PitKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  void SetUp() override {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = GetParam();
    config.boot = FlatBoot{.image = guest_code(guest_pit_modes_begin, guest_pit_modes_end)};
    const auto [vm, stop] = test::run_to_its_end(std::move(config));
    if (!vm) return;
    ASSERT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail << '\n' << stop.report;
    seen = vm->memory().read<std::array<Seen, 6>>(Gpa(0x2000)).value();
  }

  std::array<Seen, 6> seen{};
};

INSTANTIATE_TEST_SUITE_P(Local, PitKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         test::mode_name);

TEST_P(PitKvm, CountsInEachMode) {
  for (std::size_t mode = 0; mode < seen.size(); ++mode) {
    const bool reloads = mode == kRateGenerator || mode == kSquareWave;
    EXPECT_TRUE(seen[mode].most <= kCount || !reloads) << "mode " << mode << ' ' << seen[mode].most;
  }
  // Stays high; has two halves.
  EXPECT_EQ(seen[kTerminalCount].output_at_the_end, 1);
  EXPECT_TRUE(seen[kSquareWave].was_low == 1 && seen[kSquareWave].was_high == 1);
}

// KVM's own PIT counts whatever its gate says, and has OUT of mode 1 upside down.
class GateKvm : public PitKvm {};
INSTANTIATE_TEST_SUITE_P(Local, GateKvm, testing::Values(IrqchipMode::kSplit, IrqchipMode::kUser),
                         test::mode_name);

TEST_P(GateKvm, HoldsEachMode) {
  for (std::size_t mode = 0; mode < seen.size(); ++mode) {
    EXPECT_EQ(seen[mode].held, seen[mode].held_again) << "mode " << mode;
    EXPECT_EQ(seen[mode].output_before, mode == kTerminalCount ? 0 : 1) << "mode " << mode;
  }
  for (const std::size_t mode : {1U, 4U, 5U}) {
    EXPECT_EQ(seen[mode].output_at_the_end, 1) << "mode " << mode;
  }
}

}  // namespace
}  // namespace vmm

// A bare driver against the entropy device: through registers, rings and the doorbell, under KVM.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(virtio_split);
DECLARE_GUEST(virtio_packed);

constexpr std::uint32_t kRounds = 100, kLength = 64;
constexpr std::uint64_t kResults = 0x2000, kBuffers = 0x20000;

class VirtioRng : public testing::TestWithParam<IrqchipMode> {
 protected:
  // Each request of the driver's, and the answer to it.
  static void expect_recorded(const std::vector<DeviceEvent>& events) {
    std::map<std::uint16_t, int> waiting;
    std::uint32_t answers = 0;
    for (const DeviceEvent& event : events) {
      if (event.is_interrupt()) continue;
      EXPECT_EQ(event.device, "rng0");
      EXPECT_EQ(event.queue, 0);
      if (event.kind == DeviceEventKind::kRequest) {
        ++waiting[event.head];
      } else {
        EXPECT_EQ(waiting[event.head]--, 1);
        EXPECT_EQ(event.value, kLength);
        ++answers;
      }
    }
    EXPECT_EQ(answers, kRounds);
  }

  void run(std::vector<std::byte> code) {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = GetParam();
    config.boot = FlatBoot{.image = std::move(code)};
    config.virtio.emplace_back(VirtioRngConfig{});
    config.virtio_transport = VirtioTransport::kMmio;
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
      GTEST_SKIP() << "needs KVM: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(2)});
    ASSERT_TRUE(stop) << stop.error().message();
    EXPECT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail;
    const auto word = [&](std::uint64_t at) {
      return (*vm)->memory().read<std::uint32_t>(Gpa(kResults + at)).value();
    };
    EXPECT_EQ(word(0), kRounds);
    EXPECT_EQ(word(4), kLength);
    EXPECT_EQ(word(8), 0xfU);
    EXPECT_EQ(word(12), 4U);
    EXPECT_EQ(word(16), kRounds * kLength);
    std::set<std::uint64_t> answers;
    for (std::uint64_t at = 0; at < 8 * kLength; at += 8) {
      answers.insert((*vm)->memory().read<std::uint64_t>(Gpa(kBuffers + at)).value());
    }
    EXPECT_EQ(answers.size(), 64U) << "random numbers of 64 bits repeat themselves";
    EXPECT_EQ((*vm)->stats().unclaimed, 0U);
    expect_recorded((*vm)->last_events());
    // The first rings may come before KVM answers the doorbell itself.
    EXPECT_LT((*vm)->stats().exits["mmio"], kRounds);
  }
};

TEST_P(VirtioRng, SplitRing) { run(guest_code(guest_virtio_split_begin, guest_virtio_split_end)); }
TEST_P(VirtioRng, PackedRing) {
  run(guest_code(guest_virtio_packed_begin, guest_virtio_packed_end));
}

std::string name_of(const testing::TestParamInfo<IrqchipMode>& irqchip) {
  constexpr std::array kNames{"Auto", "None", "Kernel", "Split", "User"};
  return kNames[static_cast<std::size_t>(irqchip.param)];
}

INSTANTIATE_TEST_SUITE_P(Irqchips, VirtioRng,
                         testing::Values(IrqchipMode::kNone, IrqchipMode::kKernel,
                                         IrqchipMode::kSplit, IrqchipMode::kUser),
                         name_of);

}  // namespace
}  // namespace vmm

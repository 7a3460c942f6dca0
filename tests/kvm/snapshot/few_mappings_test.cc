// Machines that go on from an increment in a process that has hardly any mappings left: through the
// public headers.
#include "tests/support/few_mappings.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/guests/guest.h"
#include "tests/support/scratch_directory.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(spin);

constexpr Gpa kCounter(0x2000);  // where `spin` counts
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFirst = 256, kEnd = 1024;  // pages that the guest does not use
// More than a machine needs whose memory is a copy, less than the changed pages of the increment.
constexpr std::size_t kLeft = 200;

class FewMappingsKvm : public testing::Test {
 protected:
  void SetUp() override {
    if (test::FewMappings::limit() == 0 ||
        test::FewMappings::limit() > test::FewMappings::kMostLimit) {
      GTEST_SKIP() << "needs a limit of mappings that can be reached (vm.max_map_count)";
    }
    VmConfig config;
    config.memory.size = kEnd * kPage;
    config.irqchip = IrqchipMode::kNone;
    config.boot = FlatBoot{.image = guest_code(guest_spin_begin, guest_spin_end)};
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
      GTEST_SKIP() << "needs KVM: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    fill(**vm, 1, 0);
    ASSERT_TRUE((*vm)->save(base_));
    fill(**vm, 2, 5000);
    ASSERT_TRUE((*vm)->save_increment(increment_, base_));
  }
  static void fill(const Vm& vm, std::uint64_t step, std::uint64_t more) {
    for (std::uint64_t page = kFirst; page < kEnd; page += step) {
      ASSERT_TRUE(vm.memory().write(Gpa(page * kPage), page + more));
    }
  }
  static std::size_t mappings_of(const Vm& vm) {
    const GuestRegion& ram = vm.memory().regions().front();
    return test::mappings_within(ram.hva(), static_cast<std::size_t>(ram.range().size()));
  }
  static std::uint64_t counter(const Vm& vm) {
    return vm.memory().read<std::uint64_t>(kCounter).value();
  }
  // Its memory is the increment's, and the guest goes on.
  static void expect_whole(Vm& vm) {
    for (std::uint64_t page = kFirst; page < kEnd; ++page) {
      ASSERT_EQ(vm.memory().read<std::uint64_t>(Gpa(page * kPage)).value(),
                page + (page % 2 == 0 ? 5000 : 0));
    }
    const std::uint64_t before = counter(vm);
    while (counter(vm) == before) {
      const auto stop = vm.run({.deadline = std::chrono::milliseconds(10)});
      ASSERT_TRUE(stop) << stop.error().message();
      ASSERT_EQ(stop->reason, StopReason::kDeadline);
    }
  }

  test::ScratchDirectory scratch_;
  const std::string base_ = scratch_.file("base.snap"), increment_ = scratch_.file("more.snap");
};

TEST_F(FewMappingsKvm, MachineOfAnIncrementHasACopyThen) {
  const auto snapshot = Snapshot::open(increment_).value();
  {
    const auto mapped = Vm::create(Snapshot::config(snapshot));
    ASSERT_TRUE(mapped) << mapped.error().message();
    EXPECT_GE(mappings_of(**mapped), kEnd - kFirst);
    expect_whole(**mapped);
  }
  const test::FewMappings few(kLeft);
  ASSERT_TRUE(few.full());
  const auto copied = Vm::create(Snapshot::config(snapshot));
  ASSERT_TRUE(copied) << copied.error().message();
  EXPECT_EQ(mappings_of(**copied), 1U);
  expect_whole(**copied);
  // Back to the file, page by page.
  fill(**copied, 1, 9);
  const auto reset = (*copied)->reset_to(snapshot);
  ASSERT_TRUE(reset) << reset.error().message();
  expect_whole(**copied);
}

}  // namespace
}  // namespace vmm

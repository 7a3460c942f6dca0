// What KVM counts for a vCPU.
#include "vmm/kvm/vcpu_stat.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <optional>

#include "tests/kvm/vcpu/small_vm.h"

namespace vmm {
namespace {

using VcpuStatTest = KvmTest;

// An endless loop with an exit in it: out %al, $0x80.
constexpr std::array<std::uint8_t, 4> kExits{0xe6, 0x80, 0xeb, 0xfc};

TEST_F(VcpuStatTest, Value_growsWhileTheGuestRuns) {
  std::atomic<int> exits{0};
  const auto vm = SmallVm::create(system(), kExits, [&exits](kvm::VcpuFd&, VcpuExit&) {
    ++exits;
    exits.notify_one();
    return AfterExit::kRunOn;
  });
  ASSERT_TRUE(vm);
  std::optional<Result<kvm::VcpuStat>> stat;
  vm->call([&stat](kvm::VcpuFd& cpu) { stat.emplace(kvm::VcpuStat::open(cpu, "exits")); });
  if (!*stat) {
    EXPECT_EQ(stat->error().code(), ErrorCode::kUnsupported);
    GTEST_SKIP() << stat->error().message();
  }
  EXPECT_EQ((*stat)->value().value(), 0U);
  ASSERT_TRUE(vm->cpu().resume());
  exits.wait(0);
  vm->pause();
  const std::uint64_t first = (*stat)->value().value();
  EXPECT_GE(first, 1U);
  EXPECT_EQ((*stat)->value().value(), first);
}

TEST_F(VcpuStatTest, Open_namesWhatIsNotCounted) {
  const auto vm = SmallVm::create(system(), kExits, {});
  ASSERT_TRUE(vm);
  vm->call([](kvm::VcpuFd& cpu) {
    const auto stat = kvm::VcpuStat::open(cpu, "pf");  // no beginning of a name will do
    ASSERT_FALSE(stat);
    EXPECT_EQ(stat.error().code(), ErrorCode::kUnsupported);
  });
}

}  // namespace
}  // namespace vmm

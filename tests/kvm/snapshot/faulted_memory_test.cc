// Machines that go on from a file and whose memory comes when it is touched, by KVM and by
// everything else: through the public headers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"
#include "tests/support/scratch_directory.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(spin);

using testing::Contains;
using testing::HasSubstr;

constexpr Gpa kCounter(0x2000);  // where `spin` counts
constexpr Gpa kFar(0x300000);
constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kMemoryInFile = 4096;
const RunOptions kAWhile{.deadline = std::chrono::milliseconds(10)};

class FaultedMemoryKvm : public testing::Test {
 protected:
  // A guest that counts, and a word far away, in a file.
  void SetUp() override {
    VmConfig config;
    config.memory.size = MiB(4);
    config.irqchip = IrqchipMode::kNone;
    config.boot = FlatBoot{.image = guest_code(guest_spin_begin, guest_spin_end)};
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
      GTEST_SKIP() << "needs KVM: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    ASSERT_TRUE((*vm)->memory().write(kFar, std::uint64_t{5}));
    saved_count_ = count_on(**vm);
    ASSERT_TRUE((*vm)->save(file_));
    if (auto other = go_on(); !other && other.error().code() == ErrorCode::kUnsupported) {
      GTEST_SKIP() << other.error().message();
    }
  }
  Result<std::unique_ptr<Vm>> go_on(std::shared_ptr<const PageList> prefetch = nullptr) const {
    const auto snapshot = VMM_TRY(Snapshot::open(file_));
    VmConfig config = Snapshot::config(snapshot);
    config.boot = SnapshotBoot{.snapshot = snapshot,
                               .faulted = FaultedMemory{.prefetch = std::move(prefetch)}};
    return Vm::create(std::move(config));
  }
  std::unique_ptr<Vm> restored() const {
    auto vm = go_on();
    if (vm) return *std::move(vm);
    ADD_FAILURE() << vm.error().message();
    return nullptr;
  }
  static std::uint64_t counter(const Vm& vm) {
    return vm.memory().read<std::uint64_t>(kCounter).value();
  }
  static std::uint64_t count_on(Vm& vm) {
    const std::uint64_t before = counter(vm);
    while (counter(vm) == before) {
      const auto stop = vm.run(kAWhile);
      if (!stop || stop->reason != StopReason::kDeadline) return 0;
    }
    return counter(vm);
  }
  static std::uint64_t far(const Vm& vm) { return vm.memory().read<std::uint64_t>(kFar).value(); }
  void damage(std::uint64_t gpa) const {
    std::vector<std::byte> bytes = test::read_file(file_);
    bytes[static_cast<std::size_t>(kMemoryInFile + gpa + 100)] ^= std::byte{1};
    test::write_file(file_, bytes);
  }

  test::ScratchDirectory scratch_;
  const std::string file_ = scratch_.file("spin.snap");
  std::uint64_t saved_count_ = 0;
};

#define RESTORED_OR_RETURN(vm) \
  const auto vm = restored();  \
  ASSERT_TRUE(vm)

TEST_F(FaultedMemoryKvm, Guest_goesOnAndUsesWhatItNeeds) {
  RESTORED_OR_RETURN(vm);
  EXPECT_GT(count_on(*vm), saved_count_);
  const PageList used = vm->used_pages().value();
  EXPECT_THAT(used.pages(), testing::Not(Contains(kFar.value / kPage)));
  EXPECT_FALSE(used.pages().empty());
  EXPECT_EQ(far(*vm), 5U);
  EXPECT_THAT(vm->used_pages()->pages(), Contains(kFar.value / kPage));
}

TEST_F(FaultedMemoryKvm, UsedPages_goThroughAFileToTheNextOne) {
  const std::string list = scratch_.file("pages");
  std::vector<std::uint64_t> used;
  {
    RESTORED_OR_RETURN(vm);
    (void)count_on(*vm);
    used = vm->used_pages()->pages();
    const auto written = vm->used_pages()->write(list);
    ASSERT_TRUE(written) << written.error().message();
  }
  const auto read = PageList::read(list);
  ASSERT_TRUE(read) << read.error().message();
  const auto next = go_on(*read);
  ASSERT_TRUE(next) << next.error().message();
  EXPECT_GT(count_on(**next), saved_count_);
  EXPECT_EQ((*next)->used_pages()->pages(), used);
}

TEST_F(FaultedMemoryKvm, UsedPages_ofAMachineThatIsMapped_areRefused) {
  const auto snapshot = Snapshot::open(file_).value();
  const auto vm = Vm::create(Snapshot::config(snapshot));
  ASSERT_TRUE(vm) << vm.error().message();
  const auto used = (*vm)->used_pages();
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kUnsupported);
}

// What was never touched is in it, and not as zeroes.
TEST_F(FaultedMemoryKvm, SavedAgain_itIsWhole) {
  RESTORED_OR_RETURN(vm);
  const std::uint64_t count = count_on(*vm);
  const std::string whole = scratch_.file("whole"), increment = scratch_.file("increment");
  ASSERT_TRUE(vm->save(whole));
  ASSERT_TRUE(vm->save_increment(increment, file_));
  for (const std::string& file : {whole, increment}) {
    const auto snapshot = Snapshot::open(file);
    ASSERT_TRUE(snapshot) << snapshot.error().message();
    EXPECT_TRUE((*snapshot)->verify());
    const auto other = Vm::create(Snapshot::config(*snapshot));
    ASSERT_TRUE(other) << other.error().message();
    EXPECT_EQ(far(**other), 5U) << file;
    EXPECT_EQ(counter(**other), count) << file;
    EXPECT_GT(count_on(**other), count) << file;
  }
}

TEST_F(FaultedMemoryKvm, Increment_isMadeOfUntouchedMemory) {
  RESTORED_OR_RETURN(vm);
  const std::string increment = scratch_.file("increment");
  ASSERT_TRUE(vm->save_increment(increment, file_));
  const auto snapshot = Snapshot::open(increment);
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  EXPECT_LT((*snapshot)->file()->stored, 3 * kPage) << "nothing that is as it was";
}

TEST_F(FaultedMemoryKvm, Clone_andResetHaveAllMemory) {
  RESTORED_OR_RETURN(vm);
  const auto other = vm->clone();
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_EQ(far(**other), 5U);
  EXPECT_GT(count_on(**other), saved_count_);
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  const std::uint64_t count = counter(*vm);
  EXPECT_GT(count_on(*vm), count);
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(counter(*vm), count);
  EXPECT_EQ(far(*vm), 5U);
}

TEST_F(FaultedMemoryKvm, ResetToItsOwnFile_bringsItBack) {
  const auto snapshot = Snapshot::open(file_).value();
  VmConfig config = Snapshot::config(snapshot);
  config.boot = SnapshotBoot{.snapshot = snapshot, .faulted = FaultedMemory{}};
  const auto vm = Vm::create(std::move(config));
  ASSERT_TRUE(vm) << vm.error().message();
  (void)count_on(**vm);
  ASSERT_TRUE((*vm)->memory().write(kFar, std::uint64_t{6}));
  const auto reset = (*vm)->reset_to(snapshot);
  ASSERT_TRUE(reset) << reset.error().message();
  EXPECT_EQ(counter(**vm), saved_count_);
  EXPECT_EQ(far(**vm), 5U);
}

// The process that holds the memory for a core has all of it.
TEST_F(FaultedMemoryKvm, Core_hasWhatWasNotTouched) {
  RESTORED_OR_RETURN(vm);
  const auto frozen = vm->freeze_core();
  ASSERT_TRUE(frozen) << frozen.error().message();
  const std::string core = scratch_.file("core"), other = scratch_.file("other");
  ASSERT_TRUE((*frozen)->write(core));
  ASSERT_TRUE(vm->write_core(other));
  EXPECT_EQ(test::read_file(core), test::read_file(other));
}

TEST_F(FaultedMemoryKvm, ADamagedPageThatTheGuestUses_endsItWithAReason) {
  damage(kCounter.value);
  auto vm = go_on();
  // The CPU may look at this page when it is restored.
  if (!vm) {
    EXPECT_THAT(vm.error().message(), HasSubstr("damaged"));
    return;
  }
  const auto stop = (*vm)->run();
  ASSERT_TRUE(stop) << stop.error().message();
  EXPECT_EQ(stop->reason, StopReason::kMemoryFault);
  EXPECT_THAT(stop->detail, testing::AllOf(HasSubstr("damaged"), HasSubstr("spin.snap")));
  // It stays so, and nobody takes the rest for a guest.
  EXPECT_EQ((*vm)->run()->reason, StopReason::kMemoryFault);
  const auto snapshot = (*vm)->snapshot();
  ASSERT_FALSE(snapshot);
  EXPECT_THAT(snapshot.error().message(), HasSubstr("damaged"));
}

TEST_F(FaultedMemoryKvm, ADamagedPageThatTheGuestDoesNotUse_isFoundWhenItIsSaved) {
  damage(kFar.value);
  RESTORED_OR_RETURN(vm);
  EXPECT_GT(count_on(*vm), saved_count_);
  const std::string again = scratch_.file("again");
  const auto saved = vm->save(again);
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().code(), ErrorCode::kBadState);
  EXPECT_FALSE(Snapshot::is_snapshot(again));
  EXPECT_EQ(vm->run()->reason, StopReason::kMemoryFault);
}

TEST_F(FaultedMemoryKvm, Preallocation_isRefused) {
  const auto snapshot = Snapshot::open(file_).value();
  VmConfig config = Snapshot::config(snapshot);
  config.memory.preallocate = true;
  config.boot = SnapshotBoot{.snapshot = snapshot, .faulted = FaultedMemory{}};
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code(), ErrorCode::kBadConfig);
}

}  // namespace
}  // namespace vmm

// Snapshots, resets and clones of machines with micro guests, through the public headers.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"
#include "tests/support/scratch_directory.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(hello);
DECLARE_GUEST(spin);
DECLARE_GUEST(echo);
DECLARE_GUEST(dirty_pages);

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

constexpr Gpa kCounter(0x2000);
const RunOptions kEnough{.deadline = std::chrono::minutes(2)};
const RunOptions kAWhile{.deadline = std::chrono::milliseconds(10)};

class SnapshotKvm : public testing::Test {
 protected:
  VmConfig flat(std::vector<std::byte> code) {
    VmConfig config;
    config.memory.size = MiB(4);
    config.irqchip = IrqchipMode::kNone;
    config.boot = FlatBoot{.image = std::move(code)};
    config.serial.output = &console_;
    return config;
  }
  static std::unique_ptr<Vm> create(VmConfig config) {
    auto vm = Vm::create(std::move(config));
    if (vm) return *std::move(vm);
    if (vm.error().code() == ErrorCode::kNoKvm) {
      [&] { GTEST_SKIP() << "needs KVM: " << vm.error().message(); }();
    } else {
      ADD_FAILURE() << vm.error().message();
    }
    return nullptr;
  }
  static StopInfo run(Vm& vm, const RunOptions& options) {
    auto stop = vm.run(options);
    if (stop) return *std::move(stop);
    ADD_FAILURE() << stop.error().message();
    return {};
  }
  // The guest's receiver has room for one byte.
  static void type(Vm& vm, std::string_view text) {
    for (const char& c : text) {
      while (vm.push_serial_input(std::as_bytes(std::span(&c, 1))) == 0) (void)run(vm, kAWhile);
    }
  }
  static std::uint64_t counter(const Vm& vm) {
    return vm.memory().read<std::uint64_t>(kCounter).value();
  }

  // Runs the guest until it has counted on.
  static std::uint64_t count_on(Vm& vm) {
    const std::uint64_t before = counter(vm);
    for (int tries = 0; tries < 10000 && counter(vm) == before; ++tries) (void)run(vm, kAWhile);
    return counter(vm);
  }

  CaptureSink console_;
  test::ScratchDirectory scratch_;
};

#define CREATE_OR_RETURN(vm, config) \
  const auto vm = create(config);    \
  if (!vm) return

TEST_F(SnapshotKvm, Reset_bringsRegistersAndMemoryBack) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  (void)run(*vm, kAWhile);
  const auto before = vm->registers(VcpuId{0}).value();
  const std::uint64_t count = counter(*vm);
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  for (int i = 0; i < 100; ++i) {
    (void)run(*vm, {.deadline = std::chrono::milliseconds(1)});
    const auto reset = vm->reset_to(*snapshot);
    ASSERT_TRUE(reset) << reset.error().message();
    ASSERT_EQ(vm->registers(VcpuId{0}).value(), before);
    ASSERT_EQ(counter(*vm), count);
  }
}

TEST_F(SnapshotKvm, Reset_undoesWhatTheHostWrote) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  ASSERT_TRUE(vm->memory().write(Gpa(0x3ff000), std::uint64_t{5}));
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x3ff000)).value(), 0U);
}

TEST_F(SnapshotKvm, Reset_afterTheEndLetsTheGuestEndAgain) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(hello)));
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  EXPECT_EQ(run(*vm, kEnough).reason, StopReason::kHalted);
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(run(*vm, kEnough).reason, StopReason::kHalted);
  EXPECT_EQ(console_.text(), "hello\nhello\n");
}

// A guest says with the debug-exit port that it is ready: from there on it is reset.
TEST_F(SnapshotKvm, SnapshotAtADebugExit_goesOnBehindIt) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(dirty_pages)));
  ASSERT_TRUE(vm->memory().write(kCounter, std::uint32_t{0}));
  ASSERT_EQ(run(*vm, kEnough).reason, StopReason::kDebugExit);
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  for (const std::uint32_t pages : {10U, 100U, 700U}) {
    ASSERT_TRUE(vm->reset_to(*snapshot));
    ASSERT_TRUE(vm->memory().write(kCounter, pages));
    ASSERT_EQ(run(*vm, kEnough).reason, StopReason::kDebugExit);
    EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x100000)).value(), 1U);
    EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x100000 + 4096 * (pages - 1))).value(), 1U);
  }
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x100000)).value(), 0U);
}

TEST_F(SnapshotKvm, Reset_toAnOlderSnapshotIsPossible) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  (void)run(*vm, kAWhile);
  const auto first = vm->snapshot();
  ASSERT_TRUE(first) << first.error().message();
  const std::uint64_t count = counter(*vm);
  (void)run(*vm, kAWhile);
  const auto second = vm->snapshot();
  ASSERT_TRUE(second) << second.error().message();
  const std::uint64_t later = counter(*vm);
  ASSERT_TRUE(vm->reset_to(*first));
  EXPECT_EQ(counter(*vm), count);
  ASSERT_TRUE(vm->reset_to(*second));
  EXPECT_EQ(counter(*vm), later);
}

TEST_F(SnapshotKvm, Clone_andOriginalGoTheirOwnWays) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(echo)));
  (void)run(*vm, kAWhile);
  CaptureSink other;
  auto clone = vm->clone([&](VmConfig& config) -> Result<void> {
    config.serial.output = &other;
    return {};
  });
  ASSERT_TRUE(clone) << clone.error().message();
  type(*vm, "abc.");
  type(**clone, "xy.");
  EXPECT_EQ(run(**clone, kEnough).reason, StopReason::kDebugExit);
  EXPECT_EQ(run(*vm, kEnough).reason, StopReason::kDebugExit);
  EXPECT_EQ(console_.text(), "bcd");
  EXPECT_EQ(other.text(), "yz");
}

TEST_F(SnapshotKvm, CloneOfAClone_hasWhatItsOriginWrote) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  ASSERT_TRUE(vm->memory().write(Gpa(0x300000), std::uint64_t{1}));
  auto second = vm->clone();
  ASSERT_TRUE(second) << second.error().message();
  ASSERT_TRUE((*second)->memory().write(Gpa(0x301000), std::uint64_t{2}));
  auto third = (*second)->clone();
  ASSERT_TRUE(third) << third.error().message();
  ASSERT_TRUE((*second)->memory().write(Gpa(0x301000), std::uint64_t{3}));
  EXPECT_EQ((*third)->memory().read<std::uint64_t>(Gpa(0x300000)).value(), 1U);
  EXPECT_EQ((*third)->memory().read<std::uint64_t>(Gpa(0x301000)).value(), 2U);
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x301000)).value(), 0U);
}

TEST_F(SnapshotKvm, Clone_outlivesTheOriginal) {
  auto vm = create(flat(GUEST_CODE(spin)));
  if (!vm) return;
  (void)run(*vm, kAWhile);
  const std::uint64_t count = counter(*vm);
  auto clone = vm->clone();
  ASSERT_TRUE(clone) << clone.error().message();
  vm.reset();
  (void)run(**clone, kAWhile);
  EXPECT_GT(counter(**clone), count);
}

TEST_F(SnapshotKvm, File_restoresAndCanBeResetTo) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  (void)run(*vm, kAWhile);
  const std::uint64_t count = counter(*vm);
  const std::string path = scratch_.file("spin.snap");
  const auto saved = vm->save(path);
  ASSERT_TRUE(saved) << saved.error().message();
  const auto snapshot = Snapshot::open(path);
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  EXPECT_TRUE((*snapshot)->verify());
  CREATE_OR_RETURN(other, Snapshot::config(*snapshot));
  EXPECT_EQ(counter(*other), count);
  (void)run(*other, kAWhile);
  EXPECT_GT(counter(*other), count);
  ASSERT_TRUE(other->reset_to(*snapshot));
  EXPECT_EQ(counter(*other), count);
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(counter(*vm), count);
}

TEST_F(SnapshotKvm, FileOfASnapshot_isTheSame) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  (void)run(*vm, kAWhile);
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  const std::string path = scratch_.file("spin.snap");
  ASSERT_TRUE((*snapshot)->write(path));
  const auto read = Snapshot::open(path);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ((*read)->to_json(), (*snapshot)->to_json());
}

TEST_F(SnapshotKvm, Increments_goOnFromWhereEachWasTaken) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  std::vector<std::string> files{scratch_.file("0")};
  std::vector<std::uint64_t> counts;
  ASSERT_TRUE(vm->memory().write(Gpa(0x300000), std::uint64_t{1}));
  counts.push_back(count_on(*vm));
  ASSERT_TRUE(vm->save(files.back()));
  for (std::uint64_t i = 1; i < 4; ++i) {  // the second and later ones by the log of writes
    counts.push_back(count_on(*vm));
    ASSERT_TRUE(vm->memory().write(Gpa(0x300000 + i * 0x1000), i));
    if (i == 2) {
      ASSERT_TRUE(vm->memory().write(Gpa(0x300000), std::uint64_t{0}));
    }
    files.push_back(scratch_.file(std::to_string(i)));
    const auto saved = vm->save_increment(files[i], files[i - 1]);
    ASSERT_TRUE(saved) << saved.error().message();
  }
  ASSERT_TRUE(vm->memory().write(Gpa(0x300000), std::uint64_t{9}));
  for (std::uint64_t i = 0; i < files.size(); ++i) {
    const auto snapshot = Snapshot::open(files[i]);
    ASSERT_TRUE(snapshot) << snapshot.error().message();
    EXPECT_TRUE((*snapshot)->verify());
    if (i > 0) {
      EXPECT_LE((*snapshot)->file()->stored, 3 * 4096U);
    }
    CREATE_OR_RETURN(other, Snapshot::config(*snapshot));
    EXPECT_EQ(counter(*other), counts[i]);
    EXPECT_EQ(other->memory().read<std::uint64_t>(Gpa(0x300000)).value(), i < 2 ? 1U : 0U);
    EXPECT_EQ(other->memory().read<std::uint64_t>(Gpa(0x300000 + i * 0x1000)).value(),
              i == 0 ? 1U : i);
    EXPECT_GT(count_on(*other), counts[i]);
  }
}

// What reset_to() puts back is a change, too, and what was written before it is none of its.
TEST_F(SnapshotKvm, Increments_andResetsKnowOfEachOther) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  const Gpa where(0x300000);
  ASSERT_TRUE(vm->memory().write(where, std::uint64_t{1}));
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  ASSERT_TRUE(vm->memory().write(where, std::uint64_t{2}));
  ASSERT_TRUE(vm->save(scratch_.file("two")));
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(vm->memory().read<std::uint64_t>(where).value(), 1U);
  const auto saved = vm->save_increment(scratch_.file("one"), scratch_.file("two"));
  ASSERT_TRUE(saved) << saved.error().message();
  const auto one = Snapshot::open(scratch_.file("one"));
  ASSERT_TRUE(one) << one.error().message();
  CREATE_OR_RETURN(other, Snapshot::config(*one));
  EXPECT_EQ(other->memory().read<std::uint64_t>(where).value(), 1U);
}

TEST_F(SnapshotKvm, Increment_ofAnotherMachinesFileIsRefused) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  VmConfig larger = flat(GUEST_CODE(spin));
  larger.memory.size = MiB(8);
  CREATE_OR_RETURN(other, std::move(larger));
  ASSERT_TRUE(other->save(scratch_.file("larger")));
  const auto saved = vm->save_increment(scratch_.file("one"), scratch_.file("larger"));
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().code(), ErrorCode::kBadConfig) << saved.error().message();
  EXPECT_FALSE(std::filesystem::exists(scratch_.file("one")));
}

// The generation ID of a machine that has one, 16 bytes at a place of its map that is reserved.
TEST_F(SnapshotKvm, GenerationId_isAnotherOneInEachCopyAndTheSameAfterAReset) {
  VmConfig config;
  config.memory.size = MiB(16);
  config.irqchip = IrqchipMode::kUser;
  config.serial.output = &console_;
  CREATE_OR_RETURN(vm, std::move(config));  // the guest that is built in
  using Id = std::array<std::uint64_t, 2>;
  const auto id = [](const Vm& machine) { return machine.memory().read<Id>(Gpa(0xef800)).value(); };
  const Id first = id(*vm);
  EXPECT_NE(first, Id{});
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  CREATE_OR_RETURN(second, Snapshot::config(*snapshot));
  CREATE_OR_RETURN(third, Snapshot::config(*snapshot));
  EXPECT_NE(id(*second), first);
  EXPECT_NE(id(*third), first);
  EXPECT_NE(id(*second), id(*third));
  ASSERT_TRUE(vm->reset_to(*snapshot));
  EXPECT_EQ(id(*vm), first);
  // General-purpose event 2 waits in a copy for whoever enables it.
  const auto copy = second->snapshot();
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_NE((*copy)->to_json().find("\"gpe_status\": 4"), std::string::npos);
  EXPECT_NE((*snapshot)->to_json().find("\"gpe_status\": 0"), std::string::npos);
}

TEST_F(SnapshotKvm, GenerationId_isNotPutIntoAMachineWithoutOne) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  ASSERT_TRUE(vm->memory().write(Gpa(0xef800), std::uint64_t{5}));
  const auto clone = vm->clone();
  ASSERT_TRUE(clone) << clone.error().message();
  EXPECT_EQ((*clone)->memory().read<std::uint64_t>(Gpa(0xef800)).value(), 5U);
}

TEST_F(SnapshotKvm, Save_ofARunningGuestIsRefused) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  Result<std::shared_ptr<const Snapshot>> snapshot;
  (void)run(*vm, {.deadline = std::chrono::milliseconds(10),
                  .on_started = [&] { snapshot = vm->snapshot(); }});
  ASSERT_FALSE(snapshot);
  EXPECT_EQ(snapshot.error().code(), ErrorCode::kBadState) << snapshot.error().message();
}

TEST_F(SnapshotKvm, Save_whereThereIsNoDirectoryLeavesTheGuestAlone) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  EXPECT_FALSE(vm->save(scratch_.file("nowhere/spin.snap")));
  EXPECT_EQ(run(*vm, kAWhile).reason, StopReason::kDeadline);
}

TEST_F(SnapshotKvm, Save_thatIsCancelledLeavesTheOldFile) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  const std::string path = scratch_.file("spin.snap");
  ASSERT_TRUE(vm->save(path));
  (void)run(*vm, kAWhile);
  const auto cancelled = vm->save(path, [] { return true; });
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), ErrorCode::kCancelled) << cancelled.error().message();
  EXPECT_TRUE(Snapshot::open(path));
  EXPECT_EQ(std::distance(
                std::filesystem::directory_iterator(std::filesystem::path(path).parent_path()), {}),
            1)
      << "something was left behind";
}

TEST_F(SnapshotKvm, Restore_intoAnotherMachineSaysWhatDiffers) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  VmConfig config = Snapshot::config(*snapshot);
  config.virtio.emplace_back(VirtioRngConfig{});
  const auto other = Vm::create(std::move(config));
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code(), ErrorCode::kBadConfig);
  EXPECT_NE(other.error().message().find("'virtio'"), std::string::npos) << other.error().message();
}

TEST_F(SnapshotKvm, Cpuid_isTheSameAfterARestore) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  const auto snapshot = vm->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  auto clone = vm->clone();
  ASSERT_TRUE(clone) << clone.error().message();
  const auto again = (*clone)->snapshot();
  ASSERT_TRUE(again) << again.error().message();
  const auto cpuid = [](const Snapshot& s) {
    const std::string json = s.to_json();
    const std::size_t at = json.find("\"cpuid\"");
    return json.substr(at, json.find("\"dr\"", at) - at);
  };
  EXPECT_EQ(cpuid(**again), cpuid(**snapshot));
}

}  // namespace
}  // namespace vmm

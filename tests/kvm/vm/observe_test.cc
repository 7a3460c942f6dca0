// What is known of a guest: core files, the flight recorder, statistics, crash reports, samples.
#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <thread>

#include "devices/capture_sink.h"
#include "tests/support/scratch_directory.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

using testing::HasSubstr;

// out 0x80, al three times; in al, 0x61; out 0xf4, al
constexpr std::initializer_list<unsigned> kTalk{0xb0, 7,    0xe6, 0x80, 0xe6, 0x80, 0xe6,
                                                0x80, 0xe4, 0x61, 0xb0, 5,    0xe6, 0xf4};
// lidt [rip + empty]; ud2
constexpr std::initializer_list<unsigned> kTripleFault{0x0f, 0x01, 0x1d, 2, 0, 0, 0, 0x0f, 0x0b, 0,
                                                       0,    0,    0,    0, 0, 0, 0, 0,    0};
constexpr std::initializer_list<unsigned> kSpin{0xeb, 0xfe};
// Counts in one page after the other, kCounters of them from kFirstCounter on: mov rbx, 0x200000;
// mov ecx, 64; 1: inc qword [rbx]; add rbx, 4096; dec ecx; jnz 1; jmp the beginning
constexpr std::initializer_list<unsigned> kCount{
    0x48, 0xc7, 0xc3, 0,    0, 0x20, 0, 0xb9, 64,   0,    0,    0,    0x48, 0xff,
    0x03, 0x48, 0x81, 0xc3, 0, 0x10, 0, 0,    0xff, 0xc9, 0x75, 0xf2, 0xeb, 0xe4};
constexpr std::uint64_t kFirstCounter = MiB(2);
constexpr std::size_t kCounters = 64;
using Counters = std::array<std::uint64_t, kCounters>;

class Observe : public testing::Test {
 protected:
  static VmConfig flat(std::initializer_list<unsigned> code) {
    VmConfig config;
    config.memory.size = MiB(4);
    config.irqchip = IrqchipMode::kNone;
    std::vector<std::byte> image;
    for (const unsigned byte : code) image.push_back(static_cast<std::byte>(byte));
    config.boot = FlatBoot{.image = std::move(image)};
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

  static StopInfo run(Vm& vm, std::chrono::milliseconds deadline = std::chrono::minutes(2)) {
    auto stop = vm.run({.deadline = deadline});
    if (stop) return *std::move(stop);
    ADD_FAILURE() << stop.error().message();
    return {};
  }
};

#define CREATE_OR_RETURN(vm, config) \
  const auto vm = create(config);    \
  if (!vm) return

TEST_F(Observe, LastExits_areThoseOfTheGuest) {
  CREATE_OR_RETURN(vm, flat(kTalk));
  ASSERT_EQ(run(*vm).reason, StopReason::kDebugExit);
  const auto all = vm->last_exits();
  ASSERT_EQ(all.size(), 1U);
  std::vector<std::uint64_t> ports;
  for (const ExitRecord& exit : all[0]) {
    if (exit.name() != "pio") continue;
    ports.push_back(exit.address);
    EXPECT_EQ(exit.width, 1);
    EXPECT_EQ(exit.is_write, exit.address != 0x61);
    EXPECT_TRUE(exit.address != 0x80 || exit.value == 7) << exit.value;
    EXPECT_GT(exit.duration, 0);
    if (exit.rip != 0) {
      EXPECT_GE(exit.rip, 0x1000U);
      EXPECT_LE(exit.rip, 0x100eU);
    }
  }
  EXPECT_THAT(ports, testing::ElementsAre(0x80, 0x80, 0x80, 0x61, 0xf4));
}

TEST_F(Observe, Stats_tellPlacesAndCpusApart) {
  CREATE_OR_RETURN(vm, flat(kTalk));
  ASSERT_EQ(run(*vm).reason, StopReason::kDebugExit);
  const VmStats stats = vm->stats();
  ASSERT_EQ(stats.cpus.size(), 1U);
  EXPECT_GE(stats.cpus[0].exits, 5U);
  EXPECT_GT(stats.cpus[0].cpu_time.count(), 0);
  ASSERT_FALSE(stats.accesses.empty());
  EXPECT_EQ(stats.accesses[0].address, 0x80U);
  EXPECT_EQ(stats.accesses[0].count, 3U);
  EXPECT_EQ(stats.unlisted_accesses, 0U);
}

TEST_F(Observe, WithoutRecorder_nothingIsKept) {
  VmConfig config = flat(kTalk);
  config.recorded_exits = 0;
  CREATE_OR_RETURN(vm, std::move(config));
  ASSERT_EQ(run(*vm).reason, StopReason::kDebugExit);
  EXPECT_TRUE(vm->last_exits().at(0).empty());
  EXPECT_TRUE(vm->stats().accesses.empty());
  EXPECT_GE(vm->stats().exits["pio"], 5U);
}

TEST_F(Observe, TripleFault_reportHasCodeWalksAndExits) {
  CREATE_OR_RETURN(vm, flat(kTripleFault));
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kTripleFault) << stop.detail;
  EXPECT_THAT(stop.report, HasSubstr("\nRIP 0000000000001007"));
  EXPECT_THAT(stop.report, HasSubstr("  => 0x1007: ud2\n"));
  EXPECT_THAT(stop.report, HasSubstr("     0x1000: lidt"));
  EXPECT_THAT(stop.report, HasSubstr("\nrip 0x1007:\n"));
  EXPECT_THAT(stop.report, HasSubstr("\nrsp 0x"));
  EXPECT_THAT(stop.report, HasSubstr("last exits of vCPU 0"));
  EXPECT_THAT(stop.report, HasSubstr("shutdown"));
}

TEST_F(Observe, Core_hasMemoryAndRegisters) {
  CREATE_OR_RETURN(vm, flat(kSpin));
  ASSERT_EQ(run(*vm, std::chrono::milliseconds(20)).reason, StopReason::kDeadline);
  ASSERT_TRUE(vm->memory().write(Gpa(MiB(3)), std::uint64_t{0x1122334455667788}));
  const test::ScratchDirectory folder;
  const std::string path = folder.file("core");
  const auto written = vm->write_core(path);
  ASSERT_TRUE(written) << written.error().message();
  const std::vector<std::byte> core = test::read_file(path);
  Elf64_Ehdr head{};
  ASSERT_GT(core.size(), MiB(4));
  std::memcpy(&head, core.data(), sizeof head);
  EXPECT_EQ(std::memcmp(head.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(head.e_type, ET_CORE);
  std::vector<Elf64_Phdr> table(head.e_phnum);
  std::memcpy(table.data(), core.data() + head.e_phoff, table.size() * sizeof table[0]);
  EXPECT_EQ(table[0].p_type, static_cast<Elf64_Word>(PT_NOTE));
  const Elf64_Phdr& ram = table.at(1);
  EXPECT_EQ(ram.p_type, static_cast<Elf64_Word>(PT_LOAD));
  EXPECT_EQ(ram.p_paddr, 0U);
  EXPECT_EQ(ram.p_filesz, ram.p_memsz);
  std::uint64_t word = 0;
  std::memcpy(&word, core.data() + ram.p_offset + MiB(3), sizeof word);
  EXPECT_EQ(word, 0x1122334455667788U);
  EXPECT_EQ(core.at(ram.p_offset + 0x1000), std::byte{0xeb});
  // The guest can go on.
  EXPECT_EQ(run(*vm, std::chrono::milliseconds(20)).reason, StopReason::kDeadline);
}

TEST_F(Observe, Core_thatIsGivenUpLeavesNothing) {
  CREATE_OR_RETURN(vm, flat(kSpin));
  const test::ScratchDirectory folder;
  const auto written = vm->write_core(folder.file("core"), [] { return true; });
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(folder.file("")).parent_path()));
}

Counters counters_of(const Vm& vm) {
  Counters counters{};
  for (std::size_t i = 0; i < kCounters; ++i) {
    counters[i] = vm.memory().read<std::uint64_t>(Gpa(kFirstCounter + 4096 * i)).value_or(0);
  }
  return counters;
}

Counters counters_in_core(const std::string& path) {
  const std::vector<std::byte> core = test::read_file(path);
  Counters counters{};
  Elf64_Ehdr head{};
  Elf64_Phdr ram{};
  if (core.size() < MiB(4)) return counters;
  std::memcpy(&head, core.data(), sizeof head);
  std::memcpy(&ram, core.data() + head.e_phoff + sizeof ram, sizeof ram);
  for (std::size_t i = 0; i < kCounters; ++i) {
    std::memcpy(&counters[i], core.data() + ram.p_offset + kFirstCounter + 4096 * i,
                sizeof counters[i]);
  }
  return counters;
}

class FrozenCoreTest : public Observe {
 protected:
  // Runs the guest until it has counted on.
  static void count_on(Vm& vm) {
    const std::uint64_t before = counters_of(vm)[0];
    while (counters_of(vm)[0] < before + 2) {
      ASSERT_EQ(run(vm, std::chrono::milliseconds(5)).reason, StopReason::kDeadline);
    }
  }

  // Writes the core while the guest runs, slower than it counts, and compares it with what the
  // guest had when it was frozen.
  static void expect_one_moment(Vm& vm) {
    count_on(vm);
    const auto frozen = vm.freeze_core();
    ASSERT_TRUE(frozen) << frozen.error().message();
    const Counters then = counters_of(vm);
    std::thread runner([&] { (void)vm.run({.deadline = std::chrono::minutes(10)}); });
    std::uint64_t last = then[0];
    unsigned pieces = 0;
    const auto wait_for_guest = [&] {
      while (counters_of(vm)[0] < last + 2) std::this_thread::yield();
      last = counters_of(vm)[0];
      ++pieces;
      return false;
    };
    const test::ScratchDirectory folder;
    const auto written = (*frozen)->write(folder.file("core"), wait_for_guest);
    EXPECT_TRUE(written) << written.error().message();
    vm.cancel();
    runner.join();
    EXPECT_GT(pieces, 1u);
    EXPECT_EQ(counters_in_core(folder.file("core")), then);
    EXPECT_NE(counters_of(vm), then);
  }
};

TEST_F(FrozenCoreTest, IsOfOneMoment) {
  CREATE_OR_RETURN(vm, flat(kCount));
  expect_one_moment(*vm);
}

// Memory that is a private mapping of a snapshot's.
TEST_F(FrozenCoreTest, OfARestoredGuest) {
  CREATE_OR_RETURN(first, flat(kCount));
  count_on(*first);
  const auto snapshot = first->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  CREATE_OR_RETURN(vm, Snapshot::config(*snapshot));
  expect_one_moment(*vm);
}

TEST_F(FrozenCoreTest, OutlivesTheMachine) {
  const test::ScratchDirectory folder;
  std::unique_ptr<FrozenCore> frozen;
  Counters then{};
  {
    CREATE_OR_RETURN(vm, flat(kCount));
    count_on(*vm);
    auto made = vm->freeze_core();
    ASSERT_TRUE(made) << made.error().message();
    frozen = *std::move(made);
    then = counters_of(*vm);
  }
  ASSERT_TRUE(frozen->write(folder.file("core")));
  EXPECT_EQ(counters_in_core(folder.file("core")), then);
  const auto given_up = frozen->write(folder.file("other"), [] { return true; });
  ASSERT_FALSE(given_up);
  EXPECT_EQ(given_up.error().code(), ErrorCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(folder.file("other")));
}

TEST_F(FrozenCoreTest, NotOfMemoryThatOthersMayWrite) {
  VmConfig config = flat(kCount);
  config.memory.backing = MemoryBacking::kMemfd;
  CREATE_OR_RETURN(vm, std::move(config));
  const auto frozen = vm->freeze_core();
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(frozen.error().message(), HasSubstr("cannot be copied on write"));
}

TEST_F(Observe, WhileTheGuestRuns) {
  CREATE_OR_RETURN(vm, flat(kSpin));
  std::thread runner([&] { (void)vm->run({.deadline = std::chrono::minutes(2)}); });
  while (!vm->status().running) std::this_thread::yield();
  const auto samples = vm->sample_stacks();
  ASSERT_TRUE(samples) << samples.error().message();
  ASSERT_EQ(samples->size(), 1U);
  EXPECT_EQ(samples->front().frames.front(), 0x1000U);
  EXPECT_FALSE(samples->front().user);
  const test::ScratchDirectory folder;
  const auto core = vm->write_core(folder.file("core"));
  ASSERT_FALSE(core);
  EXPECT_EQ(core.error().code(), ErrorCode::kBadState);
  vm->cancel();
  runner.join();
}

}  // namespace
}  // namespace vmm

// Memory above RAM under KVM: a file's, and what is not plugged.
#include <elf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/guests/guest.h"
#include "tests/support/scratch_directory.h"
#include "vmm/open_pmem.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(high_memory);
DECLARE_GUEST(high_memory_spin);
#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

using testing::HasSubstr;

constexpr std::uint32_t kBefore = 0x12345678, kAfter = 0x600dcafe;

class HighMemory : public testing::Test {
 protected:
  void SetUp() override {
    path_ = directory_.file("memory");
    const std::uint32_t before = kBefore;
    test::write_file(path_, std::as_bytes(std::span(&before, 1)));
    ASSERT_EQ(::truncate(path_.c_str(), MiB(2)), 0);
  }
  static VmConfig flat(std::vector<std::byte> code) {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = IrqchipMode::kNone;
    config.boot = FlatBoot{.image = std::move(code)};
    return config;
  }
  VmConfig with_file(std::vector<std::byte> code, PmemSpec spec) {
    VmConfig config = flat(std::move(code));
    spec.file = path_;
    auto file = open_pmem(spec, Log());
    EXPECT_TRUE(file) << file.error().message();
    config.virtio.emplace_back(VirtioPmemConfig{.file = *file});
    return config;
  }
  // Runs it; false after having skipped or failed the test.
  bool run(VmConfig config, const std::function<void()>& on_started = {}) {
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
      [&] { GTEST_SKIP() << "needs KVM: " << vm.error().message(); }();
      return false;
    }
    if (!vm) {
      ADD_FAILURE() << vm.error().message();
      return false;
    }
    vm_ = *std::move(vm);
    const auto stop = vm_->run({.deadline = std::chrono::minutes(2), .on_started = on_started});
    if (!stop) {
      ADD_FAILURE() << stop.error().message();
      return false;
    }
    stop_ = *stop;
    return true;
  }
  std::uint32_t word(std::uint64_t at) {
    return vm_->memory().read<std::uint32_t>(Gpa(at)).value();
  }
  std::uint32_t in_file() {
    const auto bytes = test::read_file(path_);
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + 8, sizeof value);
    return value;
  }

  test::ScratchDirectory directory_;
  std::string path_;
  std::unique_ptr<Vm> vm_;
  StopInfo stop_;
};

TEST_F(HighMemory, File_isMemoryOfTheGuest) {
  if (!run(with_file(GUEST_CODE(high_memory), {}))) return;
  EXPECT_EQ(stop_.reason, StopReason::kDebugExit) << stop_.detail;
  EXPECT_EQ(word(0x2000), kBefore);
  EXPECT_EQ(word(0x2004), kAfter);
  EXPECT_EQ(in_file(), kAfter);
  EXPECT_EQ(vm_->memory().read<std::uint32_t>(Gpa(GiB(4) + 8)).value(), kAfter);
  EXPECT_EQ(vm_->status().memory, MiB(2));
}

TEST_F(HighMemory, ReadOnlyFile_ignoresWrites) {
  if (!run(with_file(GUEST_CODE(high_memory), {.read_only = true}))) return;
  EXPECT_EQ(stop_.reason, StopReason::kDebugExit) << stop_.detail;
  EXPECT_EQ(word(0x2000), kBefore);
  EXPECT_EQ(word(0x2004), 0U);
  EXPECT_EQ(in_file(), 0U);
}

TEST_F(HighMemory, DiscardedWrites_stayInTheMachine) {
  if (!run(with_file(GUEST_CODE(high_memory), {.discard_writes = true}))) return;
  EXPECT_EQ(stop_.reason, StopReason::kDebugExit) << stop_.detail;
  EXPECT_EQ(word(0x2004), kAfter);
  EXPECT_EQ(in_file(), 0U);
}

// The process survives it, and the guest's end says why.
TEST_F(HighMemory, FileThatIsCutWhileTheGuestRuns_endsItWithAReason) {
  const auto cut = [this] { EXPECT_EQ(::truncate(path_.c_str(), 0), 0); };
  if (!run(with_file(GUEST_CODE(high_memory_spin), {}), cut)) return;
  EXPECT_EQ(stop_.reason, StopReason::kMemoryFault);
  EXPECT_THAT(stop_.detail, HasSubstr("was cut to 0"));
  EXPECT_THAT(stop_.detail, HasSubstr(path_));
  EXPECT_FALSE(vm_->memory().read<std::uint32_t>(Gpa(GiB(4))));
}

// Hardware stops the guest there, an interpreter reads what nothing answers with.
TEST_F(HighMemory, WhatIsNotPlugged_hasNothing) {
  VmConfig config = flat(GUEST_CODE(high_memory));
  config.virtio.emplace_back(VirtioMemConfig{.most = MiB(6)});
  if (!run(std::move(config))) return;
  if (stop_.reason != StopReason::kMemoryFault) {
    EXPECT_EQ(stop_.reason, StopReason::kDebugExit) << stop_.detail;
    EXPECT_EQ(word(0x2000), 0xffff'ffffU);
    EXPECT_EQ(word(0x2004), 0xffff'ffffU);
  }
  EXPECT_FALSE(vm_->memory().read<std::uint32_t>(Gpa(GiB(4))));
}

TEST_F(HighMemory, Machine_isNotSaved) {
  if (!run(with_file(GUEST_CODE(high_memory), {}))) return;
  const auto refused = vm_->snapshot();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().message(), HasSubstr("--pmem"));
  const std::string path = directory_.file("snapshot");
  EXPECT_FALSE(vm_->save(path));
  EXPECT_NE(::access(path.c_str(), F_OK), 0);

  VmConfig growing = flat(GUEST_CODE(high_memory));
  growing.virtio.emplace_back(VirtioMemConfig{.most = MiB(6)});
  if (!run(std::move(growing))) return;
  EXPECT_THAT(vm_->snapshot().error().message(), HasSubstr("--memory-max"));
}

TEST_F(HighMemory, CoreFile_isOfRamAlone) {
  if (!run(with_file(GUEST_CODE(high_memory), {}))) return;
  const std::string path = directory_.file("core");
  const auto written = vm_->write_core(path);
  ASSERT_TRUE(written) << written.error().message();
  const auto core = test::read_file(path);
  Elf64_Ehdr head;
  ASSERT_GE(core.size(), sizeof head);
  std::memcpy(&head, core.data(), sizeof head);
  std::vector<std::uint64_t> loaded;
  for (std::size_t i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr part;
    std::memcpy(&part, core.data() + head.e_phoff + i * sizeof part, sizeof part);
    EXPECT_LE(part.p_offset + part.p_filesz, core.size()) << "part " << i;
    if (part.p_type == PT_LOAD && part.p_vaddr == part.p_paddr) loaded.push_back(part.p_paddr);
  }
  EXPECT_THAT(loaded, testing::ElementsAre(0U));
}

TEST_F(HighMemory, Size_isAskedForWithinItsBounds) {
  VmConfig config = flat(GUEST_CODE(high_memory));
  config.virtio.emplace_back(VirtioMemConfig{.most = MiB(6), .size = MiB(4)});
  auto created = Vm::create(std::move(config));
  if (!created) GTEST_SKIP() << created.error().message();
  Vm& vm = **created;
  const auto status = vm.status().plugged.value();
  EXPECT_EQ(status.requested, MiB(4));
  EXPECT_EQ(status.plugged, MiB(2));
  EXPECT_EQ(status.most, MiB(6));
  EXPECT_TRUE(vm.set_memory(MiB(6)));
  EXPECT_EQ(vm.status().plugged->requested, MiB(6));
  for (const std::uint64_t size : {MiB(1), MiB(3), MiB(8), std::uint64_t{0}}) {
    EXPECT_EQ(vm.set_memory(size).error().code(), ErrorCode::kBadConfig) << size;
  }
}

}  // namespace
}  // namespace vmm

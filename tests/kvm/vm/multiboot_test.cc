// Multiboot and PVH kernels in a machine: what they find in their registers and in their
// information.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"
#include "tests/support/kernel_images.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(multiboot1);
DECLARE_GUEST(multiboot2);
DECLARE_GUEST(multiboot_low);
DECLARE_GUEST(pvh);

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

constexpr std::uint32_t kPass = 1;

class MultibootTest : public testing::Test {
 protected:
  MultibootTest() { std::filesystem::create_directories(directory_); }
  ~MultibootTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path file(std::string_view name, std::span<const std::byte> bytes) const {
    std::ofstream out(directory_ / name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    return directory_ / name;
  }
  std::filesystem::path file(std::string_view name, std::string_view text) const {
    return file(name, std::as_bytes(std::span(text)));
  }

  // Runs the kernel to its end; its output. Skips the test without KVM.
  std::string output(std::vector<std::byte> kernel, std::vector<BootModule> modules,
                     std::optional<std::filesystem::path> initrd = {}) {
    VmConfig config;
    config.memory.size = MiB(4);
    config.irqchip = IrqchipMode::kNone;
    config.serial.output = &console_;
    config.boot = KernelBoot{.kernel = file("kernel", kernel),
                             .initrd = std::move(initrd),
                             .modules = std::move(modules),
                             .cmdline = "a=1 b",
                             .linux_cmdline = "not for this one"};
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
      [&] { GTEST_SKIP() << "needs KVM: " << vm.error().message(); }();
      return "";
    }
    if (!vm) {
      ADD_FAILURE() << vm.error().message();
      return "";
    }
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(2)});
    EXPECT_TRUE(stop && stop->reason == StopReason::kDebugExit && stop->value == kPass)
        << console_.text();
    return console_.text();
  }

  const std::filesystem::path directory_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("vmm-") + testing::UnitTest::GetInstance()->current_test_info()->name());
  CaptureSink console_;
};

TEST_F(MultibootTest, Version1_isToldCommandLineModulesAndMap) {
  const std::string text =
      output(GUEST_CODE(multiboot1),
             {{file("one", "first"), "x=1, y"}, {file("two", std::string(5000, 'z')), ""}});
  if (IsSkipped()) return;
  const std::string dir = directory_.string();
  EXPECT_EQ(text, dir + "/kernel a=1 b\nvmm\n" + dir + "/one x=1, y\nfirst\n" + dir + "/two\n" +
                      std::string(5000, 'z') + "\nM");
}

TEST_F(MultibootTest, ElfAt32KiB_goesToRealMode) {
  constexpr std::uint32_t kBase = 0x8000, kHeaderSize = 12;
  const test::ElfSpec spec{.is_64bit = false,
                           .entry = kBase + kHeaderSize,
                           .segments = {{kBase, kBase, GUEST_CODE(multiboot_low), 4096}},
                           .notes = {},
                           .tail = {}};
  const std::string text = output(test::build_elf(spec), {});
  if (IsSkipped()) return;
  EXPECT_EQ(text, "prib");
}

TEST_F(MultibootTest, Version2_isToldByTags) {
  const std::string text = output(GUEST_CODE(multiboot2), {{file("one", "first"), "x"}});
  if (IsSkipped()) return;
  const std::string dir = directory_.string();
  // Command line, loader, module, memory, map, both RSDPs, end.
  EXPECT_EQ(text, "BCDEGOPA\n" + dir + "/kernel a=1 b\n" + dir + "/one x\n");
}

TEST_F(MultibootTest, Pvh_isToldCommandLineInitrdAndModules) {
  constexpr std::uint32_t kBase = 0x10'0000;
  const test::ElfSpec spec{.is_64bit = false,
                           .entry = kBase,
                           .segments = {{kBase, kBase, GUEST_CODE(pvh), 64}},
                           .notes = {test::pvh_note(kBase)},
                           .tail = {}};
  const std::string text =
      output(test::build_elf(spec), {{file("one", "first"), "x=1, y"}, {file("two", "second"), ""}},
             file("initrd", "root"));
  if (IsSkipped()) return;
  EXPECT_EQ(text, "a=1 b\n-\nroot\nx=1, y\nfirst\n-\nsecond\n");
}

}  // namespace
}  // namespace vmm

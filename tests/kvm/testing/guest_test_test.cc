// vmm_testing itself; examples/test_a_guest.cc is its use.
#include "vmm_testing/guest_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "tests/support/scratch_directory.h"
#include "vmm_testing/guest_code.h"

namespace vmm::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::StringMatchResultListener;

// Says "up", reads a port that nobody has, and writes what it gets to the debug-exit port.
VMM_GUEST_CODE(kGuest, R"(
    mov $0x3f8, %dx
    mov $'u', %al
    out %al, %dx
    mov $'p', %al
    out %al, %dx
    movl $0x12345678, 0x2000
    mov $0x555, %dx
    in %dx, %al
    out %al, $0xf4
)");

// Real mode, which the assembler is told of; and back for what follows.
VMM_GUEST_CODE(kSixteenBits, R"(
  .code16
    mov $0x1234, %ax
    hlt
)");

VmConfig small_machine() {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = kGuest.image(), .address = Gpa(0x1000)};
  return config;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What a matcher says of a value that it does not match.
template <typename T, typename Matcher>
std::string complaint(const T& value, const Matcher& matcher) {
  StringMatchResultListener listener;
  EXPECT_FALSE(::testing::ExplainMatchResult(matcher, value, &listener));
  return listener.str();
}

TEST(GuestCode, IsAssembledForItsMode) {
  const std::vector<std::byte> image = kSixteenBits.image();
  ASSERT_EQ(image.size(), 4U);
  EXPECT_EQ(image[0], std::byte{0xb8});  // mov imm16, %ax without a prefix
  EXPECT_EQ(image[3], std::byte{0xf4});
  EXPECT_EQ(kGuest.bytes()[0], std::byte{0x66});
}

class Small : public GuestTest<Small> {
 public:
  static VmConfig machine() { return small_machine(); }
  static std::vector<Condition> ready() { return {UntilConsole{"up"}}; }
};

TEST_F(Small, BeginsWhereItIsReady) {
  EXPECT_EQ(console(), "");
  EXPECT_EQ(boot_console(), "up");
  EXPECT_THAT(vm(), Not(HasRip(0x1000U)));
  EXPECT_THAT(vm(), MemoryAt<std::uint32_t>(Gpa(0x2000), 0U));
}

TEST_F(Small, EndsAsItsMatchersSay) {
  const StopInfo stop = run();
  EXPECT_THAT(stop, ExitedWith(0xffU));
  EXPECT_THAT(stop, StoppedBy(StopReason::kDebugExit));
  EXPECT_THAT(stop, Not(StoppedBy(StopReason::kHalted)));
  EXPECT_THAT(vm(), MemoryAt<std::uint32_t>(Gpa(0x2000), 0x12345678U));
  EXPECT_THAT(vm(), HasRegister(x86::kRdx, 0x555U));
}

TEST_F(Small, MatchersSayWhatIsThereInstead) {
  const StopInfo stop = run();
  EXPECT_THAT(stop, Not(ExitedWith(1U)));
  EXPECT_THAT(::testing::PrintToString(stop), StartsWith("debug exit with the value 255"));
  EXPECT_THAT(complaint(vm(), NoUnclaimedAccess()), HasSubstr("pio read 0x555 (1 times)"));
  EXPECT_THAT(complaint(vm(), HasRegister(x86::kRdx, 1U)), HasSubstr("0x555"));
  EXPECT_THAT(complaint(vm(), MemoryAt<std::uint8_t>(Gpa(0x2000), 1U)),
              HasSubstr("where there is"));
  EXPECT_THAT(complaint(vm(), MemoryAt<std::uint8_t>(Gpa(MiB(2)), 1U)), Not(IsEmpty()));
  EXPECT_THAT(complaint(boot_console(), ConsoleContains("down")), HasSubstr("up"));
}

TEST_F(Small, BundleHasWhatAPersonWouldAskFor) {
  (void)run();
  const test::ScratchDirectory scratch;
  const std::string directory = scratch.file("deep/er");
  EXPECT_EQ(write_failure_bundle(vm(), directory, "what it said", "kernel.elf"), "");
  EXPECT_EQ(text_of(directory + "/console.txt"), "what it said");
  EXPECT_THAT(text_of(directory + "/registers.txt"), HasSubstr("rdx 0000000000000555"));
  EXPECT_THAT(text_of(directory + "/backtrace.txt"), StartsWith("CPU 0: 0x10"));
  EXPECT_THAT(text_of(directory + "/exits.txt"), HasSubstr("pio read 0x555 1 bytes 0xff"));
  EXPECT_THAT(text_of(directory + "/guest.core"), StartsWith("\x7f"
                                                             "ELF"));
  EXPECT_THAT(text_of(directory + "/gdb.sh"), HasSubstr("exec gdb kernel.elf -ex 'core-file /"));
  EXPECT_THAT(write_failure_bundle(vm(), "/dev/null/x", ""), HasSubstr("/dev/null/x"));
}

// Sends back four bytes that it waits for, and ends.
VMM_GUEST_CODE(kEcho, R"(
    mov $4, %ecx
  .Lecho_wait:
    mov $0x3fd, %dx
    in %dx, %al
    test $1, %al
    jz .Lecho_wait
    mov $0x3f8, %dx
    in %dx, %al
    out %al, %dx
    dec %ecx
    jnz .Lecho_wait
    out %al, $0xf4
)");

class Echo : public GuestTest<Echo> {
 public:
  static VmConfig machine() {
    VmConfig config = small_machine();
    config.boot = FlatBoot{.image = kEcho.image(), .address = Gpa(0x1000)};
    return config;
  }
};

// Before it has looked at its serial port, which then has no room.
TEST_F(Echo, TextWaitsForTheGuest) {
  send("ab");
  send("cdef");
  EXPECT_THAT(run(), ExitedWith(std::uint32_t{'d'}));
  EXPECT_THAT(console(), ConsoleContains("abcd"));
}

TEST_F(Echo, BeginsAtItsFirstInstruction) { EXPECT_THAT(vm(), HasRip(0x1000U)); }

class NeverReady : public GuestTest<NeverReady> {
 public:
  static VmConfig machine() { return small_machine(); }
  static std::vector<Condition> ready() { return {UntilConsole{"nothing of that kind"}}; }

 protected:
  // Every test of such a suite fails here, which is what is expected.
  void SetUp() override {
    ::testing::TestPartResultArray results;
    {
      const ::testing::ScopedFakeTestPartResultReporter reporter(
          ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
      GuestTest::SetUp();
    }
    ASSERT_EQ(results.size(), 1);
    const ::testing::TestPartResult& result = results.GetTestPartResult(0);
    if (result.skipped()) GTEST_SKIP() << result.message();
    failed_ = result.fatally_failed();
    why_ = result.message();
  }

  bool failed_ = false;
  std::string why_;
};

TEST_F(NeverReady, FailsWithWhatTheGuestDid) {
  EXPECT_TRUE(failed_);
  EXPECT_THAT(why_, HasSubstr("did not get ready, debug exit"));
  EXPECT_THAT(why_, HasSubstr("ends with:\nup"));
}

}  // namespace
}  // namespace vmm::testing

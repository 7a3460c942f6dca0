#include "vmm/doctor/host_probes.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "vmm/doctor/quirks.h"

namespace vmm::doctor {
namespace {

// One probe guest for a test; the test is skipped, with the reason, where there is no KVM.
class HostProbes : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = kvm::System::open();
    if (!system) GTEST_SKIP() << system.error().message();
    system_.emplace(std::move(*system));
    auto guest = ProbeGuest::create(*system_);
    ASSERT_TRUE(guest) << guest.error().message();
    guest_.emplace(std::move(*guest));
  }

  std::optional<kvm::System> system_;
  std::optional<ProbeGuest> guest_;
};

TEST_F(HostProbes, SpinningProgramEndsAtItsDeadline) {
  const std::array<std::uint8_t, 2> code{0xeb, 0xfe};  // jmp $
  const auto outcome = guest_->run({.code = code, .deadline = std::chrono::milliseconds(5)});
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome->end, ProbeEnd::kTimeout);
  EXPECT_EQ(outcome->rip, kKernelCode);
}

TEST_F(HostProbes, ExceptionOfUserCodeIsReportedWithItsVector) {
  const std::array<std::uint8_t, 1> code{0xf4};  // hlt: privileged, so #GP
  const auto outcome = guest_->run({.mode = ProbeMode::kLongUser, .code = code});
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome->end, ProbeEnd::kException) << outcome->describe();
  EXPECT_EQ(outcome->value, 13);
  EXPECT_EQ(outcome->cpl, 0);
}

TEST_F(HostProbes, BadProgramLeavesNothingBehindForTheNext) {
  const std::array<std::uint8_t, 2> spin{0xeb, 0xfe};                      // jmp $
  const std::array<std::uint8_t, 5> good{0xb0, 7, 0xe6, kDonePort, 0xf4};  // mov al, 7; out; hlt
  ASSERT_TRUE(guest_->run({.code = spin, .deadline = std::chrono::milliseconds(2)}));
  const auto outcome = guest_->run({.code = good});
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome->end, ProbeEnd::kDone) << outcome->describe();
  EXPECT_EQ(outcome->value, 7);
}

TEST_F(HostProbes, SignalMaskIsRestored) {
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  const std::array<std::uint8_t, 2> spin{0xeb, 0xfe};  // jmp $
  ASSERT_TRUE(guest_->run({.code = spin, .deadline = std::chrono::milliseconds(2)}));
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(sigismember(&before, SIGRTMIN + 2), sigismember(&after, SIGRTMIN + 2));
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGRTMIN + 2), 0);
}

TEST_F(HostProbes, EveryProbeAnswers) {
  EXPECT_TRUE(probe_breakpoint(*guest_));
  EXPECT_TRUE(probe_popcnt(*guest_));
  EXPECT_TRUE(probe_syscall(*guest_));
  EXPECT_TRUE(probe_hypercall(*guest_));
  EXPECT_TRUE(probe_watchpoint(*guest_));
  EXPECT_TRUE(probe_paging32(*guest_));
  EXPECT_GT(probe_pio_cost(*guest_, 100).value_or(0), 0);
  EXPECT_GT(probe_kernel_speed(*guest_, 1000).value_or(0), 0);
}

// A KVM with hardware behind it runs SYSCALL; one that interprets CPL 0 is the only one that may
// not.
TEST_F(HostProbes, QuirksAgreeWithEachOther) {
  const auto quirks = probe_host_quirks(*system_);
  ASSERT_TRUE(quirks) << quirks.error().message();
  EXPECT_TRUE(quirks->interpreted_kernel || !quirks->syscall_broken);
  EXPECT_FALSE(quirks->interpreted_kernel_why.empty());
}

}  // namespace
}  // namespace vmm::doctor

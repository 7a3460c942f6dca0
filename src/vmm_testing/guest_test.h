// A GoogleTest fixture around a guest: booted once for all tests of a suite, and each test gets a
// copy of it, in milliseconds, that no other test can disturb.
//
//   class Counter : public vmm::testing::GuestTest<Counter> {
//    public:
//     static vmm::VmConfig machine() { ... }                                   // what boots
//     static std::vector<vmm::Condition> ready() { return {vmm::UntilConsole{"ready"}}; }
//   };
//   TEST_F(Counter, Counts) {
//     send("+");
//     EXPECT_TRUE(run_until({vmm::UntilConsole{"1"}}));
//     EXPECT_THAT(run(), ExitedWith(0));
//   }
//
// Without KVM every test is skipped, with the reason. When a test fails, its guest is written to
// files (failure_bundle.h) in a directory of its own: below $VMM_TEST_FAILURES, or else
// $TEST_UNDECLARED_OUTPUTS_DIR, or else vmm-failures; the test's output names it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/capture_sink.h"
#include "vmm/vm.h"
#include "vmm_testing/failure_bundle.h"
#include "vmm_testing/matchers.h"
#include "vmm_testing/serial_feeder.h"

namespace vmm::testing {

// `Suite` is the class that derives from it. It has machine(), and may hide the static functions
// ready(), boot_deadline() and symbols(), and override equip().
template <typename Suite>
class GuestTest : public ::testing::Test {
 public:
  // When the guest is at the point that the tests begin at: any of these. None: before its first
  // instruction.
  static std::vector<Condition> ready() { return {}; }
  static std::chrono::nanoseconds boot_deadline() { return std::chrono::minutes(2); }
  // The guest's ELF file, for the gdb command of a failure.
  static std::string symbols() { return {}; }

  static void SetUpTestSuite() {
    shared_ = std::make_unique<Shared>();
    VmConfig config = Suite::machine();
    config.serial.output = &shared_->console;
    const auto vm = Vm::create(std::move(config));
    if (!vm) {
      const bool no_kvm = vm.error().code() == ErrorCode::kNoKvm;
      (no_kvm ? shared_->skip : shared_->failure) = vm.error().message();
      return;
    }
    if (const std::string why = boot(**vm); !why.empty()) {
      shared_->failure = why;
      return;
    }
    const auto snapshot = (*vm)->snapshot();
    if (snapshot) {
      shared_->snapshot = *snapshot;
    } else {
      shared_->failure = snapshot.error().message();
    }
  }

  static void TearDownTestSuite() { shared_.reset(); }

 protected:
  // What a copy of the guest is to have beside a console: backends of its disks and networks
  // (Snapshot::config()), a trace, ...
  virtual void equip(VmConfig& config) { (void)config; }

  void SetUp() override {
    if (!shared_->skip.empty()) GTEST_SKIP() << shared_->skip;
    if (!shared_->failure.empty()) FAIL() << shared_->failure;
    VmConfig config = Snapshot::config(shared_->snapshot);
    config.serial.output = &console_;
    equip(config);
    auto vm = Vm::create(std::move(config));
    if (!vm) FAIL() << "A copy of the guest: " << vm.error().message();
    vm_ = *std::move(vm);
    feeder_.emplace(*vm_);
  }

  void TearDown() override {
    if (!HasFailure() || vm_ == nullptr) return;
    const std::string directory = failure_directory();
    const std::string missing =
        write_failure_bundle(*vm_, directory, boot_console() + console(), Suite::symbols());
    ADD_FAILURE() << "The guest is in " << directory << (missing.empty() ? "" : "; ") << missing;
  }

  // The test's own machine, paused at the point that ready() names.
  Vm& vm() { return *vm_; }
  // What it has written to COM1 since then, and what the first one wrote up to there.
  std::string console() const { return console_.text(); }
  static std::string boot_console() { return shared_->console.text(); }

  // Text for COM1; what the guest has no room for yet, it gets while it runs.
  void send(std::string_view text) {
    const auto sent = feeder_->send(text);
    EXPECT_TRUE(sent) << sent.error().message();
  }

  // Runs until the guest stops, or the deadline (StopReason::kDeadline). A failure of the host is
  // one of the test, and stops as if by kCancelled.
  StopInfo run(std::chrono::nanoseconds deadline = std::chrono::seconds(60)) {
    const auto stop = vm_->run({.deadline = deadline});
    if (stop) return *stop;
    ADD_FAILURE() << stop.error().message();
    return {};
  }
  // The same for conditions; the result is false when none was met.
  UntilResult run_until(const std::vector<Condition>& conditions,
                        std::chrono::nanoseconds deadline = std::chrono::seconds(60)) {
    auto result = vm_->run_until(conditions, deadline);
    if (result) return *std::move(result);
    ADD_FAILURE() << result.error().message();
    return {};
  }

 private:
  struct Shared {
    CaptureSink console;
    std::shared_ptr<const Snapshot> snapshot;
    std::string skip;     // why no test can run
    std::string failure;  // why every test fails
  };

  // Why the guest did not come to where the tests begin; empty when it did.
  static std::string boot(Vm& vm) {
    const std::vector<Condition> conditions = Suite::ready();
    if (conditions.empty()) return {};
    const auto booted = vm.run_until(conditions, Suite::boot_deadline());
    if (!booted) return booted.error().message();
    if (*booted) return {};
    return fmt::format("The guest did not get ready, {} {}\n{}\nIts console ends with:\n{}",
                       to_string(booted->stop.reason), booted->stop.detail, booted->stop.report,
                       text_tail(booted->console));
  }

  static std::string failure_directory() {
    const ::testing::TestInfo* const test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = fmt::format("{}.{}", test->test_suite_name(), test->name());
    std::replace(name.begin(), name.end(), '/', '_');  // of parameters
    for (const char* const variable : {"VMM_TEST_FAILURES", "TEST_UNDECLARED_OUTPUTS_DIR"}) {
      const char* const parent = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
      if (parent != nullptr && *parent != 0) return std::string(parent) + "/" + name;
    }
    return "vmm-failures/" + name;
  }

  static inline std::unique_ptr<Shared> shared_;

  CaptureSink console_;
  std::unique_ptr<Vm> vm_;              // uses the console
  std::optional<SerialFeeder> feeder_;  // uses the machine
};

}  // namespace vmm::testing

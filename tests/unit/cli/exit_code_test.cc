#include "cli/exit_code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace vmm::cli {
namespace {

constexpr std::array kReasons{
    StopReason::kPowerOff,     StopReason::kReset,         StopReason::kGuestPanic,
    StopReason::kHalted,       StopReason::kTripleFault,   StopReason::kEmulationFailure,
    StopReason::kEntryFailure, StopReason::kInternalError, StopReason::kDeadline,
    StopReason::kCancelled,    StopReason::kWatchdog,      StopReason::kMemoryFault,
};

TEST(ExitCode, TableIsAscendingAndUnique) {
  EXPECT_TRUE(std::is_sorted(kExitCodes.begin(), kExitCodes.end(),
                             [](auto& a, auto& b) { return a.code < b.code; }));
  std::set<int> codes;
  for (const ExitCodeText& row : kExitCodes) codes.insert(row.code);
  EXPECT_EQ(codes.size(), kExitCodes.size());
}

TEST(ExitCode, EveryReasonHasACodeOfItsOwnFromTheTable) {
  std::set<int> codes;
  for (const StopReason reason : kReasons) codes.insert(exit_code({.reason = reason}));
  EXPECT_EQ(codes.size(), kReasons.size());
  for (const int code : codes) {
    EXPECT_TRUE(std::any_of(kExitCodes.begin(), kExitCodes.end(), [&](auto& row) {
      return row.code == code;
    })) << code;
  }
}

TEST(ExitCode, DebugExitIsOddAsTestFrameworksExpect) {
  EXPECT_EQ(exit_code({.reason = StopReason::kDebugExit, .value = 0x10}), 33);
  EXPECT_EQ(exit_code({.reason = StopReason::kDebugExit, .value = 0}), 1);
  EXPECT_EQ(exit_code({.reason = StopReason::kDebugExit, .value = 0xffffffff}), 255);
}

TEST(ExitCode, OnlyTheHostErrorLooksLikeADebugExit) {
  for (const ExitCodeText& row : kExitCodes) {
    EXPECT_TRUE(row.code % 2 == 0 || row.code == kExitHostError) << row.code;
  }
}

TEST(ExitCode, ErrorsAreToldApart) {
  EXPECT_EQ(exit_code(Error(ErrorCode::kBadConfig, "")), kExitUsage);
  EXPECT_EQ(exit_code(Error(ErrorCode::kNoKvm, "")), kExitNoKvm);
  EXPECT_EQ(exit_code(Error(ErrorCode::kBadKernel, "")), kExitBadKernel);
  EXPECT_EQ(exit_code(Error(ErrorCode::kResource, "")), kExitHostError);
}

}  // namespace
}  // namespace vmm::cli

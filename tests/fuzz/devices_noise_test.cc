// Random operations on the devices: less clever than a fuzzer, but part of every test run.
#include <gtest/gtest.h>

#include "tests/fuzz/device_operations.h"

namespace vmm::test {
namespace {

class DevicesNoise : public testing::TestWithParam<std::uint32_t> {};

TEST_P(DevicesNoise, RandomOperations_breakNothing) {
  const OperationsOutcome outcome = run_random_device_operations(GetParam(), 4000);
  EXPECT_STREQ(outcome.broken, nullptr) << "operation " << outcome.operations;
  // Not everything falls on deaf ears.
  EXPECT_GT(outcome.wakes, 0U);
}
INSTANTIATE_TEST_SUITE_P(Seeds, DevicesNoise, testing::Range(1U, 13U));

}  // namespace
}  // namespace vmm::test

// Random operations on the devices: less clever than a fuzzer, but part of every test run.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/fuzz/device_operations.h"

namespace vmm::test {
namespace {

class DevicesNoise : public testing::TestWithParam<std::uint32_t> {};

TEST_P(DevicesNoise, RandomOperations_breakNothing) {
  std::mt19937 random(GetParam());
  std::vector<std::uint8_t> program(8192);
  std::generate(program.begin(), program.end(),
                [&] { return static_cast<std::uint8_t>(random()); });
  EXPECT_STREQ(run_device_operations(program), nullptr);
}
INSTANTIATE_TEST_SUITE_P(Seeds, DevicesNoise, testing::Range(1U, 13U));

}  // namespace
}  // namespace vmm::test

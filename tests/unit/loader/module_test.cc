#include "vmm/loader/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "test_memory.h"

namespace vmm::loader {
namespace {

using ::testing::HasSubstr;

class ModuleTest : public ::testing::Test {
 protected:
  ModuleTest() {
    std::ofstream out(path_, std::ios::binary);
    out << text_;
  }
  ~ModuleTest() override { std::filesystem::remove(path_); }

  const std::string text_ = "a module, seven words, as they are";
  const std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("vmm-module-") +
       ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(ModuleTest, LiesAtTheFirstPageOfItsRoom) {
  const GuestMemory memory = ram();
  const auto range = load_module(path_, memory, GpaRange::create(Gpa(0x200001), MiB(1)).value());
  ASSERT_TRUE(range) << range.error().message();
  EXPECT_EQ(*range, GpaRange::create(Gpa(0x201000), text_.size()).value());
  EXPECT_TRUE(bytes_at(memory, 0x201000, text_.size()) == test::to_bytes(text_));
}

TEST_F(ModuleTest, WithoutRoomItIsRefusedWithTheNumbers) {
  const auto range =
      load_module(path_, ram(), GpaRange::create(Gpa(0x200000), text_.size() - 1).value());
  ASSERT_FALSE(range);
  EXPECT_EQ(range.error().code(), ErrorCode::kBadKernel);
  EXPECT_THAT(range.error().message(), HasSubstr(path_.string()));
  EXPECT_THAT(range.error().message(), HasSubstr("does not fit"));
}

TEST_F(ModuleTest, MissingFileIsNamed) {
  const auto range =
      load_module("/no/such/module", ram(), GpaRange::create(Gpa(0), MiB(1)).value());
  ASSERT_FALSE(range);
  EXPECT_THAT(range.error().message(), HasSubstr("/no/such/module"));
}

}  // namespace
}  // namespace vmm::loader

#include "vmm/early_kvm.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(EarlyKvm, TellsWhenThereIsNone) {
  EarlyKvm early("/nonexistent/kvm");
  const auto vm = early.take_vm();
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code(), ErrorCode::kNoKvm);
  EXPECT_NE(vm.error().message().find("/nonexistent/kvm"), std::string::npos);
}

TEST(EarlyKvm, TellsWhenItIsNoKvm) {
  EarlyKvm early("/dev/null");
  const auto vm = early.take_vm();
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code(), ErrorCode::kNoKvm);
}

}  // namespace
}  // namespace vmm

#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace vmm {
namespace {

Result<int> fails() { return fail_errno(ENOENT, "Open '{}'", "x"); }
Result<int> adds_context() { return with_context(fails(), "Load the kernel"); }
Result<void> passes_on() {
  const int value = VMM_TRY(adds_context());
  (void)value;
  return {};
}

TEST(Error, ChainPrintsOutermostFirst) {
  const auto result = passes_on();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "Load the kernel: Open 'x': No such file or directory");
}

TEST(Error, WrapKeepsTheCode) {
  Result<int> inner = fail(ErrorCode::kBadKernel, "no magic");
  EXPECT_EQ(with_context(std::move(inner), "outer").error().code(), ErrorCode::kBadKernel);
}

TEST(Error, ErrnoChoosesTheCode) {
  EXPECT_EQ(Error::from_errno(ENOMEM, "x").code(), ErrorCode::kResource);
  EXPECT_EQ(Error::from_errno(EINVAL, "x").code(), ErrorCode::kIo);
}

TEST(Try, YieldsTheValueOnSuccess) {
  const auto doubled = []() -> Result<int> { return 2 * VMM_TRY(Result<int>(21)); }();
  EXPECT_EQ(doubled.value(), 42);
}

}  // namespace
}  // namespace vmm

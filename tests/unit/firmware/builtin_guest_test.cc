#include "firmware/builtin_guest.h"

#include <gtest/gtest.h>

#include <string_view>

namespace vmm::firmware {
namespace {

std::string_view image_text() {
  const auto image = builtin_guest();
  return {reinterpret_cast<const char*>(image.data()), image.size()};
}

TEST(BuiltinGuest, Image_leaves_room_for_its_stacks) {
  EXPECT_GT(builtin_guest().size(), 4096u);
  EXPECT_LT(builtin_guest().size(), (kBuiltinGuestEnd - kBuiltinGuestAddress) / 2);
}

TEST(BuiltinGuest, Image_begins_with_its_entry) {
  ASSERT_GE(image_text().size(), 2u);
  EXPECT_EQ(image_text().substr(0, 2), "\xfa\xfc");  // cli, cld
}

TEST(BuiltinGuest, Image_carries_its_banner_and_prompt) {
  EXPECT_NE(image_text().find("vmm built-in guest "), std::string_view::npos);
  EXPECT_NE(image_text().find("vmm> "), std::string_view::npos);
}

}  // namespace
}  // namespace vmm::firmware

#include "vmm/gsi_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

using testing::ElementsAre;

constexpr kvm::GsiRoute kPin{.gsi = 4, .chip = 2, .pin = 4};
constexpr kvm::GsiRoute kOtherPin{.gsi = 5, .chip = 2, .pin = 5};
constexpr kvm::GsiRoute kMessage{.gsi = 24, .is_msi = true, .msi_address = 0xfee0'0000};

class GsiTableTest : public testing::Test {
 protected:
  GsiTable make(std::vector<kvm::GsiRoute> pins) {
    return GsiTable(
        [this](std::span<const kvm::GsiRoute> routes) -> Result<void> {
          if (refuse) return fail(ErrorCode::kResource, "no");
          kvm.assign(routes.begin(), routes.end());
          return {};
        },
        std::move(pins));
  }
  std::vector<kvm::GsiRoute> kvm;
  bool refuse = false;
};

TEST_F(GsiTableTest, Messages_leaveThePinsAsTheyAre) {
  GsiTable table = make({kPin});
  ASSERT_TRUE(table.set_messages(std::vector{kMessage}));
  EXPECT_THAT(kvm, ElementsAre(kPin, kMessage));
}

TEST_F(GsiTableTest, Pins_leaveTheMessagesAsTheyAre) {
  GsiTable table = make({kPin});
  ASSERT_TRUE(table.set_messages(std::vector{kMessage}));
  ASSERT_TRUE(table.set_pins(std::vector{kOtherPin}));
  EXPECT_THAT(kvm, ElementsAre(kOtherPin, kMessage));
}

TEST_F(GsiTableTest, RefusedHalf_isForgotten) {
  GsiTable table = make({kPin});
  refuse = true;
  EXPECT_FALSE(table.set_messages(std::vector{kMessage}));
  refuse = false;
  ASSERT_TRUE(table.set_pins(std::vector{kOtherPin}));
  EXPECT_THAT(kvm, ElementsAre(kOtherPin));
}

}  // namespace
}  // namespace vmm

#include "devices/mac_address.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace vmm {
namespace {

TEST(MacAddress, Text_isRead) {
  const MacAddress expected{{0x52, 0x54, 0x00, 0xab, 0xCD, 0x01}};
  EXPECT_EQ(MacAddress::parse("52:54:00:ab:CD:01").value(), expected);
  EXPECT_EQ(MacAddress::parse("52-54-00-ab-cd-01").value(), expected);
  EXPECT_EQ(expected.text(), "52:54:00:ab:cd:01");
}

TEST(MacAddress, OtherText_isRefused) {
  for (const char* text : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:012", "52:54:00:ab:cd-01",
                           "5g:54:00:ab:cd:01", "+2:54:00:ab:cd:01", "525:4:00:ab:cd:01"}) {
    EXPECT_FALSE(MacAddress::parse(text)) << text;
  }
}

TEST(MacAddress, Derived_isOnesOwnAndStable) {
  std::set<MacAddress> seen;
  for (int i = 0; i < 1000; ++i) {
    const MacAddress address = MacAddress::derive("machine " + std::to_string(i));
    EXPECT_FALSE(address.is_group());
    EXPECT_EQ(address.bytes[0] & 2, 2);  // locally administered
    seen.insert(address);
  }
  EXPECT_EQ(seen.size(), 1000U);
  EXPECT_EQ(MacAddress::derive("a").text(), MacAddress::derive("a").text());
}

}  // namespace
}  // namespace vmm

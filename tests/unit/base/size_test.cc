#include "base/size.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(ParseSize, AcceptsWhatPeopleWrite) {
  EXPECT_EQ(parse_size("512M").value(), MiB(512));
  EXPECT_EQ(parse_size("2G").value(), GiB(2));
  EXPECT_EQ(parse_size("1GiB").value(), GiB(1));
  EXPECT_EQ(parse_size("64 KiB").value(), KiB(64));
  EXPECT_EQ(parse_size("4096").value(), 4096U);
  EXPECT_EQ(parse_size("4096b").value(), 4096U);
  EXPECT_EQ(parse_size("0x100000").value(), MiB(1));
  EXPECT_EQ(parse_size("1.5g").value(), MiB(1536));
  EXPECT_EQ(parse_size(" 3kb ").value(), KiB(3));
}

TEST(ParseSize, RefusesEverythingElseAndNamesIt) {
  for (const char* text : {"", "M", "12X", "1..5G", "1.5", "-1M", "1 2", "1Gi", "0xzz", "1GiBB",
                           "99999999999999999999", "18446744073709551615K", "16777216T"}) {
    const auto result = parse_size(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code(), ErrorCode::kBadConfig) << text;
    EXPECT_NE(result.error().message().find(text), std::string::npos) << text;
  }
}

TEST(FormatSize, PicksTheLargestUnit) {
  EXPECT_EQ(format_size(MiB(512)), "512 MiB");
  EXPECT_EQ(format_size(GiB(1) + MiB(512)), "1.5 GiB");
  EXPECT_EQ(format_size(100), "100 bytes");
  EXPECT_EQ(format_size(0), "0 bytes");
}

}  // namespace
}  // namespace vmm

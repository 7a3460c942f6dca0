#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <string_view>

namespace vmm {
namespace {

std::uint32_t of(std::string_view text, std::uint32_t before = 0) {
  return crc32c(std::as_bytes(std::span(text)), before);
}

// The check value that catalogues of CRCs give.
TEST(Crc32c, Digits_giveTheCheckValue) { EXPECT_EQ(of("123456789"), 0xe3069283U); }

TEST(Crc32c, Nothing_isZero) { EXPECT_EQ(of(""), 0U); }

TEST(Crc32c, Pieces_giveTheSameAsTheWhole) { EXPECT_EQ(of("6789", of("12345")), of("123456789")); }

}  // namespace
}  // namespace vmm

#include "base/byte_ring.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "base/size.h"

namespace vmm {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(ByteRing, TakesWhatFitsAndKeepsTheOrder) {
  ByteRing ring(8);
  EXPECT_EQ(ring.push(bytes_of("abcdef")), 6U);
  ring.pop(4);
  EXPECT_EQ(ring.push(bytes_of("ghijklmn")), 6U);
  EXPECT_EQ(ring.room(), 0U);
  EXPECT_EQ(text_of(ring.contents()), "efghijkl");
}

TEST(ByteRing, FrontIsTheOldestPieceInOneRun) {
  ByteRing ring(8);
  ring.push(bytes_of("abcdefgh"));
  ring.pop(6);
  ring.push(bytes_of("ij"));
  EXPECT_EQ(text_of(ring.front()), "gh");
  ring.pop(2);
  EXPECT_EQ(text_of(ring.front()), "ij");
  ring.pop(2);
  EXPECT_TRUE(ring.front().empty());
}

TEST(ByteRing, DropsTheOldestWhenAsked) {
  ByteRing ring(4);
  ring.push_over_oldest(bytes_of("abc"));
  ring.push_over_oldest(bytes_of("de"));
  EXPECT_EQ(text_of(ring.contents()), "bcde");
  ring.push_over_oldest(bytes_of("0123456789"));
  EXPECT_EQ(text_of(ring.contents()), "6789");
}

TEST(ByteRing, KeepsItsContentsWhileItGrows) {
  ByteRing ring(MiB(1));
  std::string expected;
  for (int i = 0; expected.size() < 100'000; ++i) expected += std::to_string(i) + ",";
  ring.push(bytes_of(std::string_view(expected).substr(0, 3000)));
  ring.pop(1000);
  ring.push(bytes_of(std::string_view(expected).substr(3000)));
  EXPECT_EQ(text_of(ring.contents()), expected.substr(1000));
}

}  // namespace
}  // namespace vmm

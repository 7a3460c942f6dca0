#include "vmm/loader/decompress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/size.h"
#include "test_memory.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using ::testing::HasSubstr;

Result<Bytes> unpack(Compression compression, std::span<const std::byte> in, std::uint64_t limit) {
  Bytes out;
  VMM_TRY(decompress(compression, in, limit, [&](std::span<const std::byte> piece) -> Result<void> {
    test::append(out, piece);
    return {};
  }));
  return out;
}

Result<void> drop(std::span<const std::byte>) { return {}; }

class Decompress : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(AllFormats, Decompress, ::testing::ValuesIn(test::kAllCompressions),
                         test_name);

TEST_P(Decompress, IsDetectedByItsMagic) {
  EXPECT_EQ(detect_compression(test::compress(GetParam(), test::pattern(100))), GetParam());
}

TEST_P(Decompress, GivesBackWhatWasPacked) {
  // More than one block of every format: LZ4's have 8 MiB, bzip2's at least 100 kB.
  const std::size_t size = GetParam() == Compression::kLz4Legacy ? MiB(9) : KiB(600);
  const Bytes original = test::pattern(size + 12345);
  const auto unpacked = unpack(GetParam(), test::compress(GetParam(), original), original.size());
  ASSERT_TRUE(unpacked) << unpacked.error().message();
  EXPECT_TRUE(*unpacked == original);
}

TEST_P(Decompress, SaysWhereTheStreamEnds) {
  Bytes packed = test::compress(GetParam(), test::pattern(5000));
  const std::size_t size = packed.size();
  packed.resize(size + 1000);  // zeroes behind it
  const auto result = decompress(GetParam(), packed, MiB(1), drop);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->consumed, size);
  EXPECT_EQ(result->produced, 5000U);
}

TEST_P(Decompress, StopsAtTheLimit) {
  const Bytes bomb = test::compress(GetParam(), Bytes(MiB(4)));
  std::uint64_t taken = 0;
  const auto result =
      decompress(GetParam(), bomb, MiB(1), [&](std::span<const std::byte> piece) -> Result<void> {
        taken += piece.size();
        return {};
      });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kBadKernel);
  EXPECT_LE(taken, MiB(1));
}

TEST_P(Decompress, AcceptsExactlyTheLimit) {
  const Bytes packed = test::compress(GetParam(), test::pattern(MiB(1)));
  EXPECT_TRUE(unpack(GetParam(), packed, MiB(1)));
  EXPECT_FALSE(unpack(GetParam(), packed, MiB(1) - 1));
}

TEST_P(Decompress, TruncatedInputIsNeverWhole) {
  const Bytes original = test::pattern(3000);
  const Bytes packed = test::compress(GetParam(), original);
  for (std::size_t size = 0; size < packed.size(); ++size) {
    const auto result = unpack(GetParam(), std::span(packed).first(size), MiB(1));
    // LZ4's legacy format has no end mark: cut between blocks, it is merely shorter.
    EXPECT_TRUE(result ? GetParam() == Compression::kLz4Legacy && result->size() < original.size()
                       : result.error().code() == ErrorCode::kBadKernel)
        << size;
  }
}

TEST_P(Decompress, EachFlippedByteEndsWell) {
  const Bytes packed = test::compress(GetParam(), test::pattern(3000));
  for (std::size_t at = 0; at < packed.size(); ++at) {
    Bytes broken = packed;
    broken[at] ^= std::byte{0x55};
    const auto result = unpack(GetParam(), broken, MiB(1));
    EXPECT_TRUE(result || !result.error().message().empty()) << at;
  }
}

TEST_P(Decompress, AnErrorOfTheSinkEndsIt) {
  const Bytes packed = test::compress(GetParam(), test::pattern(100));
  const auto result =
      decompress(GetParam(), packed, MiB(1), [](std::span<const std::byte>) -> Result<void> {
        return fail(ErrorCode::kIo, "the sink is full");
      });
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("the sink is full"));
}

TEST(DecompressDetection, NeedsTheWholeMagic) {
  EXPECT_EQ(detect_compression({}), std::nullopt);
  EXPECT_EQ(detect_compression(test::to_bytes("BZ")), std::nullopt);
  EXPECT_EQ(detect_compression(test::to_bytes("070701")), std::nullopt);
}

TEST(DecompressLzma, RefusesAHugeDictionary) {
  Bytes packed = test::compress(Compression::kLzma, test::pattern(100));
  test::put32(packed, 1, 0x80000000U);  // dictionary size: 2 GiB
  const auto result = unpack(Compression::kLzma, packed, MiB(1));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("more memory than is allowed"));
}

}  // namespace
}  // namespace vmm::loader

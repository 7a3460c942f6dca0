#include "devices/virtio/net_header.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace vmm::virtio {
namespace {

constexpr NetOffloads kAll{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true};
constexpr std::size_t kSize = 3000;

NetHeader segment(std::uint8_t gso_type = NetHeader::kGsoTcp4) {
  NetHeader header;
  header.flags = NetHeader::kNeedsChecksum;
  header.gso_type = gso_type;
  header.gso_size = 1448;
  header.header_length = 66;
  header.checksum_start = 34;
  header.checksum_offset = 16;
  return header;
}

bool admitted(NetHeader header, const NetOffloads& allowed = kAll, std::size_t size = kSize) {
  return admit_header(header, size, allowed);
}

TEST(NetHeader, SegmentsAndChecksums_passWhenAllowed) {
  EXPECT_TRUE(admitted({}));
  EXPECT_TRUE(admitted(segment(NetHeader::kGsoTcp4)));
  EXPECT_TRUE(admitted(segment(NetHeader::kGsoTcp6)));
  EXPECT_TRUE(admitted(segment(NetHeader::kGsoUdp)));
  EXPECT_TRUE(admitted(segment(NetHeader::kGsoTcp4 | NetHeader::kGsoEcn)));
  EXPECT_TRUE(admitted(segment(NetHeader::kGsoNone)));
}

TEST(NetHeader, WhatWasNotNegotiated_isRefused) {
  EXPECT_TRUE(admitted({}, {}));
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoNone), {}));
  NetOffloads allowed = kAll;
  allowed.tso4 = false;
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoTcp4), allowed));
  allowed = kAll;
  allowed.tso6 = false;
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoTcp6), allowed));
  allowed = kAll;
  allowed.ufo = false;
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoUdp), allowed));
  allowed = kAll;
  allowed.ecn = false;
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoTcp4 | NetHeader::kGsoEcn), allowed));
}

TEST(NetHeader, ChecksumOutsideOfTheFrame_isRefused) {
  NetHeader header = segment(NetHeader::kGsoNone);
  header.checksum_start = kSize - 18;
  EXPECT_TRUE(admitted(header));
  header.checksum_start = kSize - 17;
  EXPECT_FALSE(admitted(header));
  header.checksum_start = 0xffff;
  header.checksum_offset = 0xffff;
  EXPECT_FALSE(admitted(header));
  header = segment(NetHeader::kGsoNone);
  header.checksum_start = 13;  // in the Ethernet header
  EXPECT_FALSE(admitted(header));
}

TEST(NetHeader, ImpossibleSegments_areRefused) {
  NetHeader header = segment();
  header.gso_size = 0;
  EXPECT_FALSE(admitted(header));
  header.gso_size = kLeastGsoSize - 1;
  EXPECT_FALSE(admitted(header));
  header = segment();
  header.flags = 0;
  EXPECT_FALSE(admitted(header)) << "segments without checksums";
  EXPECT_FALSE(admitted(segment(2)));
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoEcn)));
  EXPECT_FALSE(admitted(segment(NetHeader::kGsoUdp | NetHeader::kGsoEcn)));
  EXPECT_FALSE(admitted(segment(5)));
}

TEST(NetHeader, FramesOfNoGoodSize_areRefused) {
  EXPECT_FALSE(admitted({}, kAll, 0));
  EXPECT_FALSE(admitted({}, kAll, 13));
  EXPECT_TRUE(admitted({}, kAll, 14));
  EXPECT_TRUE(admitted({}, kAll, NetBackend::kMostFrame));
  EXPECT_FALSE(admitted({}, kAll, NetBackend::kMostFrame + 1));
}

TEST(NetHeader, FieldsWithoutMeaning_areCleared) {
  NetHeader header;
  header.flags = 0xfe;
  header.gso_size = 7;
  header.header_length = 0xffff;
  header.checksum_start = 0xffff;
  header.checksum_offset = 0xffff;
  header.buffers = 0xffff;
  ASSERT_TRUE(admit_header(header, kSize, kAll));
  const NetHeader cleared;
  EXPECT_EQ(std::memcmp(&header, &cleared, sizeof header), 0);
}

TEST(NetHeader, Hint_isBroughtIntoTheFrame) {
  NetHeader header = segment();
  header.header_length = 0xffff;
  ASSERT_TRUE(admit_header(header, kSize, kAll));
  EXPECT_EQ(header.header_length, kSize);
}

TEST(NetHeader, AnyBytes_leadToOffsetsInsideTheFrame) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t words[2]{random(), random()};
    NetHeader header;
    std::memcpy(&header, words, sizeof header);
    const std::size_t size = random() % 200;
    if (!admit_header(header, size, kAll)) continue;
    EXPECT_LE(header.checksum_start + header.checksum_offset, size);
    EXPECT_LE(header.header_length, size);
  }
}

}  // namespace
}  // namespace vmm::virtio

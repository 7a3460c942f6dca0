#include "vmm/debug/packet.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/fakes/debug_target.h"

namespace vmm::debug {
namespace {

using Kind = PacketEvent::Kind;

std::vector<PacketEvent> read_all(PacketReader& reader, std::string_view bytes) {
  std::vector<PacketEvent> events;
  while (auto event = reader.next(bytes)) events.push_back(*event);
  return events;
}

std::vector<PacketEvent> read_all(std::string_view bytes) {
  PacketReader reader;
  return read_all(reader, bytes);
}

TEST(Packet, ChecksumIsTheSumOfTheBytes) {
  EXPECT_EQ(encode_packet("OK"), "$OK#9a");
  EXPECT_EQ(encode_packet(""), "$#00");
}

TEST(Packet, GoodPacketIsRead) {
  const auto events = read_all("$OK#9a");
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, Kind::kPacket);
  EXPECT_EQ(events[0].payload, "OK");
}

TEST(Packet, BytesMayComeOneByOne) {
  PacketReader reader;
  for (const char c : std::string_view("$OK#9")) {
    EXPECT_TRUE(read_all(reader, std::string_view(&c, 1)).empty());
  }
  ASSERT_EQ(read_all(reader, "a").size(), 1U);
}

TEST(Packet, WrongChecksumIsBad) {
  const auto events = read_all("$OK#9b$OK#xy");
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].kind, Kind::kBad);
  EXPECT_EQ(events[1].kind, Kind::kBad);
}

TEST(Packet, EscapedBytesAreRestored) {
  const auto events = read_all("$X}\x03}\x04#" +
                               to_hex(std::string(1, static_cast<char>('X' + '}' + 3 + '}' + 4))));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].payload, "X#$");
}

TEST(Packet, WhatStandsBetweenPacketsIsTold) {
  const auto events = read_all("+-\x03junk$#00");
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[0].kind, Kind::kAck);
  EXPECT_EQ(events[1].kind, Kind::kNack);
  EXPECT_EQ(events[2].kind, Kind::kInterrupt);
  EXPECT_EQ(events[3].kind, Kind::kPacket);
}

TEST(Packet, ControlCInsideOfAPacketIsData) {
  const auto events = read_all("$a\x03#64");
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].payload, "a\x03");
}

TEST(Packet, LostEndIsForgotten) {
  const auto events = read_all("$gar$OK#9a");
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].payload, "OK");
}

TEST(Packet, LongestPayloadIsRead) {
  const std::string payload(kMostPayload, 'a');
  std::uint8_t sum = 0;
  for (const char c : payload) sum = static_cast<std::uint8_t>(sum + c);
  const auto events =
      read_all("$" + payload + "#" + to_hex(std::string(1, static_cast<char>(sum))));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].payload, payload);
}

TEST(Packet, LongerPayloadIsBadAndTheNextOneGood) {
  const auto events = read_all("$" + std::string(kMostPayload + 1, 'a') + "#61$OK#9a");
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].kind, Kind::kBad);
  EXPECT_EQ(events[1].payload, "OK");
}

TEST(Packet, RunsAreShortened) {
  EXPECT_EQ(encode_packet("0000").substr(0, 5), "$0* #");
  EXPECT_EQ(encode_packet("000").substr(0, 5), "$000#");
}

class PacketRuns : public testing::TestWithParam<std::size_t> {};

TEST_P(PacketRuns, AnyLengthComesBackWhole) {
  const std::string payload(GetParam(), 'x');
  const std::string wire = encode_packet(payload);
  const std::string inside = wire.substr(1, wire.size() - 4);
  EXPECT_EQ(test::decode_payload(inside), payload);
  EXPECT_EQ(inside.find_first_of("#$"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Packet, PacketRuns, testing::Range<std::size_t>(0, 210));

TEST(Packet, EveryByteComesBackThroughTheReader) {
  std::string payload;
  for (int i = 0; i < 256; ++i) payload += static_cast<char>(i);
  const auto events = read_all(encode_packet(payload));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].payload, payload);
}

// Blocks of plain bytes with something else at every place in them.
TEST(Packet, EscapesAndRunsAreFoundAnywhere) {
  const std::vector<std::string> others{
      "#", "$", "}", "*", "zzzz", "zzzzz", std::string(200, 'z'), "#zzzz*"};
  for (std::size_t before = 0; before < 40; ++before) {
    for (std::size_t after = 0; after < 40; after += 3) {
      for (const std::string& other : others) {
        std::string payload;
        for (std::size_t i = 0; i < before; ++i) payload += static_cast<char>('a' + i % 20);
        payload += other;
        for (std::size_t i = 0; i < after; ++i) payload += static_cast<char>('a' + i % 20);
        const std::string wire = encode_packet(payload);
        const std::string inside = wire.substr(1, wire.size() - 4);
        EXPECT_EQ(test::decode_payload(inside), payload);
        EXPECT_EQ(inside.find_first_of("#$"), std::string::npos);
        unsigned sum = 0;
        for (const char c : inside) sum += static_cast<unsigned char>(c);
        EXPECT_EQ(wire.substr(wire.size() - 2), to_hex(std::string(1, static_cast<char>(sum))));
      }
    }
  }
}

TEST(Hex, NumbersAreTakenFromTheFront) {
  std::string_view text = "1fg";
  EXPECT_EQ(take_hex(text), 0x1fU);
  EXPECT_EQ(text, "g");
  EXPECT_EQ(take_hex(text), std::nullopt);
}

TEST(Hex, MoreThanSixtyFourBitsAreNoNumber) {
  std::string_view most = "ffffffffffffffff";
  EXPECT_EQ(take_hex(most), ~std::uint64_t{0});
  std::string_view more = "10000000000000000";
  EXPECT_EQ(take_hex(more), std::nullopt);
}

TEST(Hex, BytesComeInPairs) {
  EXPECT_EQ(from_hex("00fF"), std::string("\0\xff", 2));
  EXPECT_EQ(from_hex("0"), std::nullopt);
  EXPECT_EQ(from_hex("0g"), std::nullopt);
  EXPECT_EQ(to_hex(std::string("\0\xff", 2)), "00ff");
}

}  // namespace
}  // namespace vmm::debug

#include "vmm/x86/aml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::x86::aml {
namespace {

Term bytes(std::initializer_list<unsigned> values) {
  Term term;
  for (const unsigned value : values) term.push_back(static_cast<std::byte>(value));
  return term;
}

Term zeros(std::size_t count) { return Term(count); }

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_EQ(integer(0), bytes({0x00}));
  EXPECT_EQ(integer(1), bytes({0x01}));
  EXPECT_EQ(integer(2), bytes({0x0a, 0x02}));
  EXPECT_EQ(integer(0xff), bytes({0x0a, 0xff}));
  EXPECT_EQ(integer(0x100), bytes({0x0b, 0x00, 0x01}));
  EXPECT_EQ(integer(0x10000), bytes({0x0c, 0x00, 0x00, 0x01, 0x00}));
  EXPECT_EQ(integer(0x100000000), bytes({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Aml, PathsPadSegmentsAndCountThem) {
  EXPECT_EQ(path("RTC"), bytes({'R', 'T', 'C', '_'}));
  EXPECT_EQ(path("\\"), bytes({'\\', 0}));
  EXPECT_EQ(path("^^COM1"), bytes({'^', '^', 'C', 'O', 'M', '1'}));
  EXPECT_EQ(path("\\_SB.A"), bytes({'\\', 0x2e, '_', 'S', 'B', '_', 'A', '_', '_', '_'}));
  EXPECT_EQ(path("A.B.C"),
            bytes({0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'}));
}

TEST(Aml, EisaIdsAreCompressedBigEndian) {
  EXPECT_EQ(eisa_id("PNP0501"), bytes({0x0c, 0x41, 0xd0, 0x05, 0x01}));
  EXPECT_EQ(eisa_id("PNP0B00"), bytes({0x0c, 0x41, 0xd0, 0x0b, 0x00}));
}

TEST(Aml, StringsEndInZero) { EXPECT_EQ(string("hi"), bytes({0x0d, 'h', 'i', 0})); }

// A package length counts itself, so each form ends where its own bytes still fit.
TEST(Aml, PackageLengthsGrowWithTheirContent) {
  // The bytes between the opcode and the content, for a scope of so much content.
  const auto length_of = [](std::size_t content) {
    const Term term = scope("A", {zeros(content - 4)});
    const auto size = static_cast<std::ptrdiff_t>(term.size() - 1 - content);
    return Term(term.begin() + 1, term.begin() + 1 + size);
  };
  EXPECT_EQ(length_of(62), bytes({0x3f}));
  EXPECT_EQ(length_of(63), bytes({0x41, 0x04}));
  EXPECT_EQ(length_of(0xffd), bytes({0x4f, 0xff}));
  EXPECT_EQ(length_of(0xffe), bytes({0x81, 0x00, 0x01}));
}

TEST(Aml, NestsDevicesInScopes) {
  EXPECT_EQ(scope("\\_SB", {device("D", {name("_UID", integer(1))})}),
            bytes({0x10, 19,  '\\', '_', 'S',  'B', '_', 0x5b, 0x82, 11,
                   'D',  '_', '_',  '_', 0x08, '_', 'U', 'I',  'D',  0x01}));
}

TEST(Aml, MethodsHoldTheirArgumentCount) {
  EXPECT_EQ(method("_STA", 2, {return_value(integer(15))}),
            bytes({0x14, 9, '_', 'S', 'T', 'A', 2, 0xa4, 0x0a, 15}));
}

TEST(Aml, SerializedMethodsSaySo) {
  EXPECT_EQ(method("_OSC", 4, {}, Serialize::kYes), bytes({0x14, 6, '_', 'O', 'S', 'C', 0x0c}));
}

TEST(Aml, UuidsAreBuffersOfMixedOrder) {
  EXPECT_EQ(uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766"),
            bytes({0x11, 19,   0x0a, 16,   0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f,
                   0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66}));
}

TEST(Aml, OperatorsComeBeforeTheirOperands) {
  EXPECT_EQ(dword_field(argument(3), 8, "CDW3"), bytes({0x8a, 0x6b, 0x0a, 8, 'C', 'D', 'W', '3'}));
  EXPECT_EQ(no(equal(argument(1), integer(1))), bytes({0x92, 0x93, 0x69, 0x01}));
  EXPECT_EQ(store(bit_and(local(1), integer(0)), local(0)),
            bytes({0x70, 0x7b, 0x61, 0x00, 0x00, 0x60}));
  EXPECT_EQ(bit_or(local(7), integer(1)), bytes({0x7d, 0x67, 0x01, 0x00}));
}

TEST(Aml, PackagesCountTheirElements) {
  EXPECT_EQ(package({integer(5), integer(0)}), bytes({0x12, 5, 2, 0x0a, 5, 0}));
  EXPECT_EQ(package({}), bytes({0x12, 2, 0}));
}

TEST(Aml, ResourceTemplatesAreBuffersWithAnEndTag) {
  EXPECT_EQ(resource_template({io_ports(0x3f8, 8), isa_irq(4)}),
            bytes({0x11, 16, 0x0a, 13, 0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0}));
}

TEST(Aml, LargeDescriptors) {
  EXPECT_EQ(memory32(0xd0000000, 0x200), bytes({0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 2, 0, 0}));
  EXPECT_EQ(interrupt(5, Trigger::kEdge, Polarity::kActiveLow),
            bytes({0x89, 6, 0, 7, 1, 5, 0, 0, 0}));
  EXPECT_EQ(interrupt(5, Trigger::kLevel, Polarity::kActiveHigh)[3], std::byte{1});
  EXPECT_EQ(interrupt(5, Trigger::kLevel, Polarity::kActiveHigh, Sharing::kShared)[3],
            std::byte{9});
}

}  // namespace
}  // namespace vmm::x86::aml

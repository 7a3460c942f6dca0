#include "vmm/x86/smbios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/le.h"
#include "test_memory.h"

namespace vmm::x86 {
namespace {

using testing::ElementsAre;

struct Structure {
  std::vector<std::byte> fields;
  std::vector<std::string> strings;
  std::uint64_t at(std::size_t offset, std::size_t size) const {
    return load_le(std::span(fields).subspan(offset, size));
  }
};

std::vector<std::byte> bytes_at(const GuestMemory& memory, std::uint64_t address,
                                std::size_t size) {
  std::vector<std::byte> bytes(size);
  EXPECT_TRUE(memory.read(Gpa(address), bytes));
  return bytes;
}

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

unsigned sum(std::span<const std::byte> bytes) {
  unsigned result = 0;
  for (const std::byte b : bytes) result += std::to_integer<unsigned>(b);
  return result & 0xff;
}

// The structures as a reader walks them.
std::multimap<unsigned, Structure> walk(std::span<const std::byte> table) {
  std::multimap<unsigned, Structure> found;
  std::size_t at = 0;
  while (at + 4 <= table.size()) {
    const auto length = std::to_integer<std::size_t>(table[at + 1]);
    Structure structure;
    structure.fields.assign(table.begin() + static_cast<long>(at),
                            table.begin() + static_cast<long>(at + length));
    const auto type = std::to_integer<unsigned>(table[at]);
    at += length;
    if (table[at] == std::byte{0}) ++at;  // no strings: two zeroes
    while (table[at] != std::byte{0}) {
      structure.strings.emplace_back(reinterpret_cast<const char*>(&table[at]));
      at += structure.strings.back().size() + 1;
    }
    ++at;
    found.emplace(type, std::move(structure));
  }
  EXPECT_EQ(at, table.size());
  return found;
}

class SmbiosTest : public testing::Test {
 protected:
  std::multimap<unsigned, Structure> tables(const SmbiosConfig& config) {
    const auto at = write_smbios_tables(memory_, config);
    EXPECT_TRUE(at);
    const auto entry = bytes_at(memory_, at->value + 32, 24);
    return walk(bytes_at(memory_, load_le(std::span(entry).subspan(16, 8)),
                         load_le(std::span(entry).subspan(12, 4))));
  }
  const GuestMemory memory_ = test_memory();
};

TEST_F(SmbiosTest, BothEntryPointsLeadToTheTable) {
  const Gpa at = write_smbios_tables(memory_, {.ram_bytes = MiB(512)}).value();
  EXPECT_EQ(at.value % 16, 0U);
  const auto old = bytes_at(memory_, at.value, 31);
  EXPECT_EQ(text(std::span(old).first(4)), "_SM_");
  EXPECT_EQ(text(std::span(old).subspan(16, 5)), "_DMI_");
  EXPECT_EQ(sum(old), 0U);
  EXPECT_EQ(sum(std::span(old).subspan(16)), 0U);
  const auto entry = bytes_at(memory_, at.value + 32, 24);
  EXPECT_EQ(text(std::span(entry).first(5)), "_SM3_");
  EXPECT_EQ(sum(entry), 0U);
  EXPECT_EQ(load_le(std::span(old).subspan(24, 4)), load_le(std::span(entry).subspan(16, 8)));
  EXPECT_EQ(load_le(std::span(old).subspan(22, 2)), load_le(std::span(entry).subspan(12, 4)));
}

TEST_F(SmbiosTest, HasTheStructuresThatItNames) {
  const auto found = tables({.ram_bytes = MiB(512)});
  std::vector<unsigned> types;
  for (const auto& [type, structure] : found) types.push_back(type);
  EXPECT_THAT(types, ElementsAre(0, 1, 3, 4, 16, 17, 19, 32, 127));
  // Lengths of the specification's tables.
  const std::map<unsigned, std::size_t> lengths{{0, 0x18},  {1, 0x1b},  {3, 0x16},
                                                {4, 0x30},  {16, 0x17}, {17, 0x28},
                                                {19, 0x1f}, {32, 0xb},  {127, 4}};
  for (const auto& [type, structure] : found) {
    EXPECT_EQ(structure.fields.size(), lengths.at(type)) << type;
  }
  EXPECT_THAT(found.find(1)->second.strings, ElementsAre("vmm", "Virtual machine", "1"));
}

TEST_F(SmbiosTest, Uuid_hasItsFirstFieldsTurned) {
  const auto found = tables(
      {.ram_bytes = MiB(512), .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}});
  const Structure& system = found.find(1)->second;
  EXPECT_EQ(system.at(8, 4), 0x00010203U);
  EXPECT_EQ(system.at(12, 2), 0x0405U);
  EXPECT_EQ(system.at(14, 2), 0x0607U);
  EXPECT_EQ(system.at(16, 8), 0x0f0e0d0c0b0a0908U);
}

TEST_F(SmbiosTest, Memory_isOneDeviceWithItsAddresses) {
  const auto found = tables({.ram_bytes = GiB(5)});
  EXPECT_EQ(found.find(16)->second.at(7, 4), GiB(5) / 1024);
  EXPECT_EQ(found.find(17)->second.at(12, 2), 5U * 1024);
  EXPECT_EQ(found.find(17)->second.at(4, 2), found.find(16)->second.at(2, 2));
  ASSERT_EQ(found.count(19), 2U);
  EXPECT_EQ(found.find(19)->second.at(4, 4), 0U);
  EXPECT_EQ(found.find(19)->second.at(8, 4), GiB(3) / 1024 - 1);
  EXPECT_EQ(std::next(found.find(19))->second.at(4, 4), GiB(4) / 1024);
}

TEST_F(SmbiosTest, LargeMemory_usesTheLongFields) {
  const auto found = tables({.ram_bytes = std::uint64_t{1} << 43});
  EXPECT_EQ(found.find(16)->second.at(7, 4), 0x80000000U);
  EXPECT_EQ(found.find(16)->second.at(15, 8), std::uint64_t{1} << 43);
  EXPECT_EQ(found.find(17)->second.at(12, 2), 0x7fffU);
  EXPECT_EQ(found.find(17)->second.at(28, 4), std::uint64_t{1} << 23);
  EXPECT_EQ(std::next(found.find(19))->second.at(4, 4), 0xffffffffU);
}

TEST_F(SmbiosTest, Cpus_areTheCoresOfOneSocket) {
  const auto found = tables({.cpus = 300, .ram_bytes = MiB(512)});
  EXPECT_EQ(found.find(4)->second.at(35, 1), 255U);
  EXPECT_EQ(found.find(4)->second.at(42, 2), 300U);
  EXPECT_FALSE(write_smbios_tables(memory_, {.cpus = 0}));
}

TEST_F(SmbiosTest, LiesBesideTheMpTable) {
  EXPECT_FALSE(kSmbios.overlaps(kMpTable));
  EXPECT_FALSE(kSmbios.overlaps(kBiosStub));
  EXPECT_TRUE(kBiosArea.contains(kSmbios));
}

}  // namespace
}  // namespace vmm::x86

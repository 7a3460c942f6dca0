#include "vmm/x86/mptable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/x86/acpi_walk.h"
#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

using testing::HasSubstr;

struct MpTable {
  TableBytes pointer;
  TableBytes table;
  std::vector<TableBytes> entries;

  std::vector<TableBytes> of_type(std::uint8_t type) const {
    auto found = entries;
    std::erase_if(found, [&](const TableBytes& e) { return e[0] != std::byte{type}; });
    return found;
  }
};

// Reads the table as a kernel does: from the pointer, entry by entry.
MpTable table_of(const MpConfig& config) {
  const GuestMemory memory = test_memory();
  MpTable mp;
  mp.pointer = read_bytes(memory, write_mp_table(memory, config).value(), 16);
  const Gpa at(field<std::uint32_t>(mp.pointer, 4));
  mp.table = read_bytes(memory, at, memory.read<std::uint16_t>(Gpa(at.value + 4)).value());
  for (std::size_t next = 44; next < mp.table.size();) {
    const std::size_t size = mp.table[next] == std::byte{0} ? 20 : 8;
    const auto begin = mp.table.begin() + static_cast<std::ptrdiff_t>(next);
    mp.entries.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(size));
    next += size;
  }
  return mp;
}

TEST(MpTable, SignaturesRevisionsAndChecksums) {
  const MpTable mp = table_of({.cpus = 5, .cpu_signature = 0xa10f11, .cpu_features = 0x78bfbff});
  EXPECT_EQ(signature_of(mp.pointer), "_MP_");
  EXPECT_EQ(field<std::uint8_t>(mp.pointer, 9), 4);
  EXPECT_EQ(sum_of(mp.pointer, 16), 0U);
  EXPECT_EQ(signature_of(mp.table), "PCMP");
  EXPECT_EQ(field<std::uint8_t>(mp.table, 6), 4);
  EXPECT_EQ(sum_of(mp.table, mp.table.size()), 0U);
  EXPECT_EQ(field<std::uint32_t>(mp.table, 36), 0xfee00000U);
  EXPECT_EQ(field<std::uint16_t>(mp.table, 34), mp.entries.size());
}

TEST(MpTable, ThePointerIsWhereKernelsLook) {
  const GuestMemory memory = test_memory();
  const Gpa at = write_mp_table(memory, {}).value();
  EXPECT_TRUE(kBiosArea.contains(at));
  EXPECT_EQ(at.value % 16, 0U);
}

TEST(MpTable, TheFirstCpuIsTheBootProcessor) {
  const auto cpus = table_of({.cpus = 3, .cpu_signature = 0x1234}).of_type(0);
  ASSERT_EQ(cpus.size(), 3U);
  EXPECT_EQ(field<std::uint8_t>(cpus[0], 3), 3);
  EXPECT_EQ(field<std::uint8_t>(cpus[2], 1), 2);
  EXPECT_EQ(field<std::uint8_t>(cpus[2], 3), 1);
  EXPECT_EQ(field<std::uint32_t>(cpus[2], 4), 0x1234U);
}

TEST(MpTable, InterruptsGoToTheIoApic) {
  const MpTable mp = table_of({.io_apic_id = 7});
  EXPECT_EQ(field<std::uint8_t>(mp.of_type(2).at(0), 1), 7);
  EXPECT_EQ(field<std::uint32_t>(mp.of_type(2).at(0), 4), 0xfec00000U);
  const auto interrupts = mp.of_type(3);
  ASSERT_EQ(interrupts.size(), 16U);
  EXPECT_EQ(field<std::uint8_t>(interrupts[0], 1), 3);  // ExtINT on pin 0
  EXPECT_EQ(field<std::uint8_t>(interrupts[1], 5), 0);  // IRQ 0
  EXPECT_EQ(field<std::uint8_t>(interrupts[1], 7), 2);  // on pin 2
  EXPECT_EQ(field<std::uint8_t>(interrupts[4], 5), 4);  // COM1's
  EXPECT_EQ(field<std::uint8_t>(interrupts[4], 6), 7);
  EXPECT_EQ(field<std::uint8_t>(interrupts[4], 7), 4);
  EXPECT_EQ(field<std::uint8_t>(interrupts[9], 5), 9);
  EXPECT_EQ(field<std::uint16_t>(interrupts[9], 2), 0x0d);
  EXPECT_EQ(field<std::uint16_t>(interrupts[8], 2), 0);
}

TEST(MpTable, LocalInterruptsAreTheUsualTwo) {
  const auto lints = table_of({}).of_type(4);
  ASSERT_EQ(lints.size(), 2U);
  EXPECT_EQ(field<std::uint8_t>(lints[0], 1), 3);
  EXPECT_EQ(field<std::uint8_t>(lints[0], 7), 0);
  EXPECT_EQ(field<std::uint8_t>(lints[1], 1), 1);
  EXPECT_EQ(field<std::uint8_t>(lints[1], 7), 1);
}

TEST(MpTable, HasRoomForAllCpusThereCanBe) {
  EXPECT_EQ(table_of({.cpus = 255}).of_type(0).size(), 255U);
  const GuestMemory memory = test_memory();
  EXPECT_THAT(write_mp_table(memory, {.cpus = 256}).error().message(), HasSubstr("256 CPUs"));
  EXPECT_FALSE(write_mp_table(memory, {.cpus = 0}));
}

TEST(BiosData, NamesTheEbda) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_bios_data(memory));
  EXPECT_EQ(memory.read<std::uint16_t>(Gpa(0x40e)).value(), 0x9fc0);
  EXPECT_EQ(memory.read<std::uint16_t>(Gpa(0x413)).value(), 639);
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(0x9fc00)).value(), 1);
  EXPECT_EQ(memory.read<std::uint16_t>(Gpa(0x467)).value(), 0xa5a5);
}

}  // namespace
}  // namespace vmm::x86

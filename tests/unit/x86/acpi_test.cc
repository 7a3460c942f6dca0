#include "vmm/x86/acpi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/x86/acpi_walk.h"
#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::map<std::string, TableBytes> tables_of(const AcpiConfig& config) {
  const GuestMemory memory = test_memory();
  return walk_acpi(memory, write_acpi_tables(memory, config).value());
}

std::vector<std::string> signatures(const std::map<std::string, TableBytes>& tables) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : tables) names.push_back(signature_of(bytes));
  return names;
}

// The entries of a MADT: their bytes, type first.
std::vector<TableBytes> madt_entries(const TableBytes& madt) {
  std::vector<TableBytes> entries;
  for (std::size_t at = 44; at + 2 <= madt.size();) {
    const auto length = field<std::uint8_t>(madt, at + 1);
    if (length < 2) break;
    const auto begin = madt.begin() + static_cast<std::ptrdiff_t>(at);
    entries.emplace_back(begin, begin + length);
    at += length;
  }
  return entries;
}

std::vector<TableBytes> entries_of_type(const TableBytes& madt, std::uint8_t type) {
  auto entries = madt_entries(madt);
  std::erase_if(entries, [&](const TableBytes& e) { return e[0] != std::byte{type}; });
  return entries;
}

TEST(Acpi, RsdpPointsToTheRest) {
  const GuestMemory memory = test_memory();
  EXPECT_EQ(write_acpi_tables(memory, {}).value(), Gpa(0xe0000));
  const auto tables = tables_of({});
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(tables.at("RSDP").data()), 8), "RSD PTR ");
  EXPECT_EQ(field<std::uint8_t>(tables.at("RSDP"), 15), 2);
  EXPECT_THAT(signatures(tables),
              ElementsAre("APIC", "DSDT", "FACP", "FACS", "RSD ", "RSDT", "XSDT"));
}

TEST(Acpi, HpetIsNamedWhereThereIsOne) {
  EXPECT_THAT(signatures(tables_of({})), Not(Contains("HPET")));
  const auto hpet = tables_of({.hpet = true}).at("HPET");
  ASSERT_EQ(hpet.size(), 56U);
  EXPECT_EQ(field<std::uint32_t>(hpet, 36), Hpet::kBlockId);
  EXPECT_EQ(field<std::uint8_t>(hpet, 40), 0);  // memory
  EXPECT_EQ(field<std::uint64_t>(hpet, 44), 0xfed0'0000U);
}

TEST(Acpi, ChecksumsAreRight) {
  const auto tables = tables_of({.cpus = 7});
  EXPECT_EQ(sum_of(tables.at("RSDP"), 20), 0U);
  EXPECT_EQ(sum_of(tables.at("RSDP"), 36), 0U);
  for (const char* const name : {"RSDT", "XSDT", "FACP", "APIC", "DSDT"}) {
    EXPECT_EQ(sum_of(tables.at(name), tables.at(name).size()), 0U) << name;
  }
}

TEST(Acpi, RsdtAndXsdtListTheSameTables) {
  const auto tables = tables_of({});
  const TableBytes& rsdt = tables.at("RSDT");
  const TableBytes& xsdt = tables.at("XSDT");
  ASSERT_EQ((rsdt.size() - 36) / 4, 2U);
  ASSERT_EQ((xsdt.size() - 36) / 8, 2U);
  EXPECT_EQ(field<std::uint32_t>(rsdt, 36), field<std::uint64_t>(xsdt, 36));
  EXPECT_EQ(field<std::uint32_t>(rsdt, 40), field<std::uint64_t>(xsdt, 44));
}

TEST(Acpi, FadtNamesPowerManagement) {
  const TableBytes fadt = tables_of({}).at("FACP");
  ASSERT_EQ(fadt.size(), 276U);
  EXPECT_EQ(field<std::uint8_t>(fadt, 8), 6);         // revision
  EXPECT_EQ(field<std::uint16_t>(fadt, 46), 9);       // SCI_INT
  EXPECT_EQ(field<std::uint32_t>(fadt, 48), 0U);      // SMI_CMD
  EXPECT_EQ(field<std::uint32_t>(fadt, 56), 0x600U);  // PM1a_EVT_BLK
  EXPECT_EQ(field<std::uint32_t>(fadt, 64), 0x604U);  // PM1a_CNT_BLK
  EXPECT_EQ(field<std::uint32_t>(fadt, 76), 0x608U);  // PM_TMR_BLK
  EXPECT_EQ(field<std::uint8_t>(fadt, 88), 4);
  EXPECT_EQ(field<std::uint8_t>(fadt, 89), 2);
  EXPECT_EQ(field<std::uint8_t>(fadt, 91), 4);
  EXPECT_EQ(field<std::uint64_t>(fadt, 148 + 4), 0x600U);  // X_PM1a_EVT_BLK
  EXPECT_EQ(field<std::uint64_t>(fadt, 172 + 4), 0x604U);
  EXPECT_EQ(field<std::uint64_t>(fadt, 208 + 4), 0x608U);
}

TEST(Acpi, FadtHasButtonAndAlarmAmongItsEvents) {
  const TableBytes fadt = tables_of({}).at("FACP");
  constexpr std::uint32_t kNoPowerButton = 1U << 4, kNoSleepButton = 1U << 5, kNoRtc = 1U << 6;
  EXPECT_EQ(field<std::uint32_t>(fadt, 112) & (kNoPowerButton | kNoSleepButton | kNoRtc),
            kNoSleepButton);
}

TEST(Acpi, FadtHasOneBlockOfGeneralPurposeEvents) {
  const TableBytes fadt = tables_of({}).at("FACP");
  EXPECT_EQ(field<std::uint32_t>(fadt, 80), 0x60cU);  // GPE0_BLK
  EXPECT_EQ(field<std::uint32_t>(fadt, 84), 0U);      // GPE1_BLK
  EXPECT_EQ(field<std::uint8_t>(fadt, 92), 4);        // GPE0_BLK_LEN
  EXPECT_EQ(field<std::uint8_t>(fadt, 93), 0);
  EXPECT_EQ(field<std::uint8_t>(fadt, 220), 1);  // X_GPE0_BLK: I/O space
  EXPECT_EQ(field<std::uint8_t>(fadt, 221), 32);
  EXPECT_EQ(field<std::uint64_t>(fadt, 220 + 4), 0x60cU);
  EXPECT_EQ(field<std::uint64_t>(fadt, 232 + 4), 0U);  // X_GPE1_BLK
}

TEST(Acpi, FadtHasAResetRegister) {
  const TableBytes fadt = tables_of({}).at("FACP");
  EXPECT_NE(field<std::uint32_t>(fadt, 112) & (1U << 10), 0U);
  EXPECT_EQ(field<std::uint8_t>(fadt, 116), 1);  // I/O space
  EXPECT_EQ(field<std::uint8_t>(fadt, 117), 8);  // bits
  EXPECT_EQ(field<std::uint64_t>(fadt, 120), 0xcf9U);
  EXPECT_EQ(field<std::uint8_t>(fadt, 128), 6);
}

TEST(Acpi, FadtFlagsFollowTheDevices) {
  const TableBytes full = tables_of({}).at("FACP");
  EXPECT_EQ(field<std::uint16_t>(full, 109), 0x07);  // legacy, 8042, no VGA
  EXPECT_EQ(field<std::uint8_t>(full, 108), 0x32);
  EXPECT_EQ(field<std::uint32_t>(full, 112) & (1U << 20), 0U);  // not hardware-reduced
  const TableBytes bare = tables_of({.pm_timer_is_32_bit = false,
                                     .serial_ports = {},
                                     .rtc = false,
                                     .keyboard_controller = false})
                              .at("FACP");
  EXPECT_EQ(field<std::uint16_t>(bare, 109), 0x24);  // no VGA, no CMOS clock
  EXPECT_EQ(field<std::uint8_t>(bare, 108), 0);
  EXPECT_NE(field<std::uint32_t>(full, 112) & (1U << 8), 0U);
  EXPECT_EQ(field<std::uint32_t>(bare, 112) & (1U << 8), 0U);
}

TEST(Acpi, FacsIsInNvsAndAligned) {
  const TableBytes fadt = tables_of({}).at("FACP");
  const Gpa facs(field<std::uint32_t>(fadt, 36));
  EXPECT_TRUE(kAcpiNvs.contains(facs));
  EXPECT_EQ(facs.value % 64, 0U);
}

TEST(Acpi, MadtHasAnEntryForEachCpu) {
  const TableBytes madt = tables_of({.cpus = 3}).at("APIC");
  EXPECT_EQ(field<std::uint32_t>(madt, 36), 0xfee00000U);
  const auto cpus = entries_of_type(madt, 0);
  ASSERT_EQ(cpus.size(), 3U);
  EXPECT_EQ(field<std::uint8_t>(cpus[2], 3), 2);    // APIC ID
  EXPECT_EQ(field<std::uint32_t>(cpus[2], 4), 1U);  // enabled
}

TEST(Acpi, MadtUsesX2apicEntriesFromId255On) {
  const TableBytes madt = tables_of({.cpus = 257}).at("APIC");
  EXPECT_EQ(entries_of_type(madt, 0).size(), 255U);
  const auto wide = entries_of_type(madt, 9);
  ASSERT_EQ(wide.size(), 2U);
  EXPECT_EQ(field<std::uint32_t>(wide[0], 4), 255U);
  EXPECT_EQ(field<std::uint32_t>(wide[1], 12), 256U);
  EXPECT_EQ(entries_of_type(madt, 0xa).size(), 1U);
  EXPECT_EQ(entries_of_type(tables_of({.cpus = 255}).at("APIC"), 0xa).size(), 0U);
}

TEST(Acpi, MadtRoutesTheTimerAndTheSci) {
  const TableBytes madt = tables_of({.io_apic_id = 5}).at("APIC");
  const auto io_apic = entries_of_type(madt, 1).at(0);
  EXPECT_EQ(field<std::uint8_t>(io_apic, 2), 5);
  EXPECT_EQ(field<std::uint32_t>(io_apic, 4), 0xfec00000U);
  const auto overrides = entries_of_type(madt, 2);
  ASSERT_EQ(overrides.size(), 2U);
  EXPECT_EQ(field<std::uint8_t>(overrides[0], 3), 0);
  EXPECT_EQ(field<std::uint32_t>(overrides[0], 4), 2U);
  EXPECT_EQ(field<std::uint8_t>(overrides[1], 3), 9);
  EXPECT_EQ(field<std::uint32_t>(overrides[1], 4), 9U);
  EXPECT_EQ(field<std::uint16_t>(overrides[1], 8), 0xd);  // level, active high
  const auto low = tables_of({.sci_polarity = aml::Polarity::kActiveLow}).at("APIC");
  EXPECT_EQ(field<std::uint16_t>(entries_of_type(low, 2)[1], 8), 0xf);
  EXPECT_EQ(entries_of_type(madt, 4).size(), 1U);
}

TEST(Acpi, McfgNamesTheConfigurationSpaceOfBusZero) {
  const auto tables = tables_of({.pci = AcpiPciRoot{kPciConfig, kPciMemory}});
  const TableBytes& mcfg = tables.at("MCFG");
  ASSERT_EQ(mcfg.size(), 60U);
  EXPECT_EQ(sum_of(mcfg, mcfg.size()), 0U);
  EXPECT_EQ(field<std::uint64_t>(mcfg, 44), kPciConfig.base().value);
  EXPECT_EQ(field<std::uint16_t>(mcfg, 52), 0);  // segment
  EXPECT_EQ(field<std::uint8_t>(mcfg, 55), 0);   // last bus
  EXPECT_THAT(signatures(tables_of({})), Not(Contains("MCFG")));
}

TEST(Acpi, WithoutInterruptControllersThereIsNoMadt) {
  EXPECT_THAT(signatures(tables_of({.interrupt_controllers = false})), Not(Contains("APIC")));
}

TEST(Acpi, RefusesImpossibleNumbersOfCpus) {
  const GuestMemory memory = test_memory();
  EXPECT_THAT(write_acpi_tables(memory, {.cpus = 0}).error().message(), HasSubstr("0 CPUs"));
  EXPECT_FALSE(write_acpi_tables(memory, {.cpus = kMaxAcpiCpus + 1}));
  EXPECT_TRUE(write_acpi_tables(memory, {.cpus = kMaxAcpiCpus}));
}

TEST(Acpi, TablesThatDoNotFitAreRefused) {
  const GuestMemory memory = test_memory();
  const aml::Term huge = aml::name("BLOB", aml::buffer(std::vector<std::byte>(KiB(64))));
  const auto result = write_acpi_tables(memory, {.devices = {huge}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(memory.read<std::uint8_t>(kAcpiNvs.end()).value(), 0xa5);
}

}  // namespace
}  // namespace vmm::x86

#include "vmm/debug/needed_pages.h"

#include <gtest/gtest.h>

#include "base/size.h"

namespace vmm::debug {
namespace {

constexpr std::uint64_t kPresent = 1, kLarge = 1U << 7;

class NeededPages : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(4)).value(), {}).value());
    memory = GuestMemory::create(std::move(regions)).value();
    system.gdt.limit = system.idt.limit = 0;
  }

  void put(std::uint64_t table, std::uint64_t index, std::uint64_t entry) {
    ASSERT_TRUE(memory.write(Gpa(table + 8 * index), entry));
  }

  // Four levels, the first 2 MiB by pages of 4 KiB, the next by a large one.
  void put_tables() {
    put(0x1000, 0, 0x2000 | kPresent);
    put(0x2000, 0, 0x3000 | kPresent);
    put(0x3000, 0, 0x4000 | kPresent);
    put(0x3000, 1, MiB(2) | kPresent | kLarge);
    for (std::uint64_t i = 0; i < 512; ++i) put(0x4000, i, i * 4096 | kPresent);
  }

  std::set<Gpa> needed(std::uint64_t pc) const {
    return needed_pages(memory, {.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 0x20, .efer = 0x500},
                        system, pc);
  }

  GuestMemory memory;
  x86::SystemRegisters system;
};

TEST_F(NeededPages, TablesCodeAndDescriptors) {
  put_tables();
  system.gdt.base = 0x10ff8;  // in two pages
  system.gdt.limit = 15;
  system.idt.base = 0x20000;
  system.idt.limit = 0xfff;
  system.tr.selector = 0x40;
  system.tr.base = 0x30000;
  system.tr.limit = 0x67;
  const std::set<Gpa> pages = needed(0x40ffe);
  for (const std::uint64_t page :
       {0x1000, 0x2000, 0x3000, 0x4000, 0x10000, 0x11000, 0x20000, 0x30000, 0x40000, 0x41000}) {
    EXPECT_TRUE(pages.contains(Gpa(page))) << std::hex << page;
  }
  for (const std::uint64_t page : {0x5000, 0x12000, 0x21000, 0x31000, 0x42000, 0x200000}) {
    EXPECT_FALSE(pages.contains(Gpa(page))) << std::hex << page;
  }
}

TEST_F(NeededPages, WithoutPagingThereAreNoTables) {
  const std::set<Gpa> pages = needed_pages(memory, {.cr0 = 1, .cr3 = 0x1000}, system, 0x5000);
  EXPECT_TRUE(pages.contains(Gpa(0x5000)));
  EXPECT_FALSE(pages.contains(Gpa(0x1000)));
}

// What the registers say of descriptors is of the reset, and nobody looks there.
TEST_F(NeededPages, InRealModeOnlyVectorsAndCode) {
  system.gdt.limit = 0xffff;
  system.ldt.limit = system.tr.limit = 0xffff;
  system.tr.selector = 0x40;
  system.idt.limit = 0xffff;
  const std::set<Gpa> pages = needed_pages(memory, {}, system, 0x5000);
  EXPECT_EQ(pages, (std::set<Gpa>{Gpa(0), Gpa(0x5000)}));
}

TEST_F(NeededPages, NoMoreInterruptsThanThereAre) {
  put_tables();
  system.idt.base = 0x20000;
  system.idt.limit = 0xffff;
  EXPECT_FALSE(needed(0).contains(Gpa(0x21000)));
}

// Tables that lead to themselves, and out of memory.
TEST_F(NeededPages, CirclesEnd) {
  for (std::uint64_t i = 0; i < 512; ++i) put(0x1000, i, 0x1000 | kPresent);
  EXPECT_TRUE(needed(0).contains(Gpa(0x1000)));
  for (std::uint64_t i = 0; i < 512; ++i) put(0x1000, i, (MiB(4) + i * 4096) | kPresent);
  EXPECT_TRUE(needed(0).contains(Gpa(0x1000)));
}

}  // namespace
}  // namespace vmm::debug

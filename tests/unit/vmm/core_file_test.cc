// The parts of a core file: notes, VMCOREINFO, what the kernel has mapped.
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/procfs.h>

#include <cstring>

#include "base/size.h"
#include "vmm/core/core_notes.h"
#include "vmm/core/kernel_ranges.h"
#include "vmm/core/vmcoreinfo.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPresent = 1, kLarge = 1U << 7;

GuestMemory make_memory(std::uint64_t bytes) {
  std::vector<GuestRegion> regions;
  regions.push_back(*GuestRegion::create(*GpaRange::create(Gpa(0), bytes), {}));
  return *GuestMemory::create(std::move(regions));
}

PagingContext long_mode(std::uint64_t cr3) {
  return {.cr0 = 0x80000001, .cr3 = cr3, .cr4 = 0x20, .efer = 0x500};
}

void put(const GuestMemory& memory, std::uint64_t table, std::size_t index, std::uint64_t entry) {
  ASSERT_TRUE(memory.write(Gpa(table + 8 * index), entry));
}

TEST(KernelRanges, NeighboursAreOneRange) {
  const GuestMemory memory = make_memory(MiB(8));
  // ffffffff80000000: PML4 511, PDPT 510; two large pages that go on, then one page elsewhere.
  put(memory, 0x1000, 511, 0x2000 | kPresent);
  put(memory, 0x2000, 510, 0x3000 | kPresent);
  put(memory, 0x3000, 0, 0x200000 | kPresent | kLarge);
  put(memory, 0x3000, 1, 0x400000 | kPresent | kLarge);
  put(memory, 0x3000, 2, 0x4000 | kPresent);
  put(memory, 0x4000, 0, 0x5000 | kPresent);
  // The lower half is not the kernel's.
  put(memory, 0x1000, 0, 0x2000 | kPresent);
  const std::vector<MappedRange> expected{{0xffffffff80000000, 0x200000, MiB(4)},
                                          {0xffffffff80400000, 0x5000, 0x1000}};
  EXPECT_EQ(kernel_ranges(memory, long_mode(0x1000)), expected);
}

TEST(KernelRanges, OnlyRamCounts) {
  const GuestMemory memory = make_memory(MiB(4));
  put(memory, 0x1000, 256, 0x2000 | kPresent);
  put(memory, 0x2000, 0, 0 | kPresent | kLarge);  // a page of 1 GiB from 0 on
  const std::vector<MappedRange> expected{{0xffff800000000000, 0, MiB(4)}};
  EXPECT_EQ(kernel_ranges(memory, long_mode(0x1000)), expected);
}

// A table that leads to itself at every level and in every entry.
TEST(KernelRanges, CirclesEnd) {
  const GuestMemory memory = make_memory(MiB(1));
  for (std::size_t i = 0; i < 512; ++i) put(memory, 0x1000, i, 0x1000 | kPresent);
  const auto ranges = kernel_ranges(memory, long_mode(0x1000), {.ranges = 100, .tables = 1000});
  EXPECT_EQ(ranges.size(), 100U);
}

TEST(KernelRanges, TablesOutsideOfRamAndOtherModesAreNothing) {
  const GuestMemory memory = make_memory(MiB(1));
  EXPECT_TRUE(kernel_ranges(memory, long_mode(GiB(1))).empty());
  put(memory, 0x1000, 511, 0x7fff'ffff'f000 | kPresent);
  EXPECT_TRUE(kernel_ranges(memory, long_mode(0x1000)).empty());
  EXPECT_TRUE(kernel_ranges(memory, {.cr0 = 1, .cr3 = 0x1000}).empty());
}

std::vector<std::byte> note_of(std::string_view text, std::uint32_t size) {
  std::vector<std::byte> page;
  append_note(page, "VMCOREINFO", 0, std::as_bytes(std::span(text)));
  std::memcpy(page.data() + 4, &size, sizeof size);
  page.resize(4096);
  return page;
}

TEST(Vmcoreinfo, NoteAtThePagesStartIsFound) {
  constexpr std::string_view kText = "OSRELEASE=6.1.0\nPAGESIZE=4096\n";
  const auto page = note_of(kText, kText.size());
  const auto found = vmcoreinfo_in(page);
  ASSERT_EQ(found.size(), kText.size());
  EXPECT_EQ(std::memcmp(found.data(), kText.data(), kText.size()), 0);
}

TEST(Vmcoreinfo, WhatOnlyLooksLikeItIsNone) {
  EXPECT_TRUE(vmcoreinfo_in(std::vector<std::byte>(4096)).empty());
  EXPECT_TRUE(vmcoreinfo_in({}).empty());
  EXPECT_TRUE(vmcoreinfo_in(note_of("OSRELEASE=6.1.0\n", 5000)).empty());
  EXPECT_TRUE(vmcoreinfo_in(note_of("OSRELEASE=6.1.0\n", 0xffffffff)).empty());
  EXPECT_TRUE(vmcoreinfo_in(note_of("something else\n", 15)).empty());
  auto other = note_of("OSRELEASE=6.1.0\n", 16);
  other[12] = std::byte{'X'};
  EXPECT_TRUE(vmcoreinfo_in(other).empty());
}

TEST(CoreNotes, CpusFollowEachOther) {
  CoreCpu cpu;
  cpu.registers.rip = 0x1234;
  cpu.registers.gpr[x86::kRbx] = 0xb;
  cpu.system.cr3 = 0x1000;
  cpu.kernel_gs_base = 0x77;
  const std::vector<CoreCpu> cpus{CoreCpu{}, cpu};
  const std::vector<std::byte> notes = cpu_notes(cpus);
  constexpr std::size_t kStatus = 12 + 8 + sizeof(prstatus_t);
  constexpr std::size_t kQemu = 12 + 8 + 440;
  ASSERT_EQ(notes.size(), 2 * (kStatus + kQemu));
  Elf64_Nhdr head{};
  std::memcpy(&head, notes.data() + kStatus, sizeof head);
  EXPECT_EQ(head.n_type, static_cast<Elf64_Word>(NT_PRSTATUS));
  EXPECT_EQ(head.n_namesz, 5U);
  prstatus_t status{};
  std::memcpy(&status, notes.data() + kStatus + 20, sizeof status);
  EXPECT_EQ(status.pr_pid, 2);
  EXPECT_EQ(status.pr_reg[16], 0x1234U);  // rip
  EXPECT_EQ(status.pr_reg[5], 0xbU);      // rbx
  std::memcpy(&head, notes.data() + 2 * kStatus + kQemu, sizeof head);
  EXPECT_EQ(head.n_type, 0U);
  EXPECT_EQ(head.n_descsz, 440U);
  const auto word = [&](std::size_t at) {
    std::uint64_t value = 0;
    std::memcpy(&value, notes.data() + 2 * kStatus + kQemu + 20 + at, sizeof value);
    return value;
  };
  EXPECT_EQ(word(0), 1 | std::uint64_t{440} << 32);  // version and size
  EXPECT_EQ(word(16), 0xbU);                         // rbx
  EXPECT_EQ(word(136), 0x1234U);                     // rip
  EXPECT_EQ(word(416), 0x1000U);                     // cr3
  EXPECT_EQ(word(432), 0x77U);
}

}  // namespace
}  // namespace vmm

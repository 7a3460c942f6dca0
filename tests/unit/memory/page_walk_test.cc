#include "memory/page_walk.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/size.h"

namespace vmm {
namespace {

constexpr std::uint64_t kP = kEntryPresent;
constexpr std::uint64_t kW = kEntryWritable;
constexpr std::uint64_t kU = kEntryUser;
constexpr std::uint64_t kPs = kEntryLarge;
constexpr std::uint64_t kNx = kEntryNoExecute;
constexpr std::uint64_t kAll = kP | kW | kU;

constexpr std::uint64_t kCr0Wp = 1U << 16;
constexpr std::uint64_t kCr0Pg = 1U << 31;
constexpr std::uint64_t kCr4Pse = 1U << 4;
constexpr std::uint64_t kCr4Pae = 1U << 5;
constexpr std::uint64_t kCr4La57 = 1U << 12;
constexpr std::uint64_t kCr4Smep = 1U << 20;
constexpr std::uint64_t kCr4Smap = 1U << 21;
constexpr std::uint64_t kCr4Pke = 1U << 22;
constexpr std::uint64_t kEferLma = 1U << 10;
constexpr std::uint64_t kEferNxe = 1U << 11;
constexpr std::uint64_t kFlagAc = 1U << 18;

// 1 MiB of RAM; tables at 0x1000 (root), 0x2000, ... as each test lays them out.
class PageWalkTest : public testing::Test {
 protected:
  PageWalkTest() {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(1)).value(), {}).value());
    memory_ = GuestMemory::create(std::move(regions)).value();
  }

  void put64(std::uint64_t at, std::uint64_t value) {
    ASSERT_TRUE(memory_.write<std::uint64_t>(Gpa(at), value));
  }
  void put32(std::uint64_t at, std::uint32_t value) {
    ASSERT_TRUE(memory_.write<std::uint32_t>(Gpa(at), value));
  }
  std::uint64_t get64(std::uint64_t at) { return memory_.read<std::uint64_t>(Gpa(at)).value(); }

  PageWalk walk(std::uint64_t address, AccessKind access = AccessKind::kRead,
                WalkMarks marks = WalkMarks::kNone) {
    return walk_pages(memory_, context_, Gva(address), access, marks);
  }

  // 4-level tables with `leaf` at the page table entry of address 0x40201000 (1, 1, 1 in the lower
  // three levels) and everything permitted above.
  static constexpr std::uint64_t kAddress = 0x40201123;
  void four_level(std::uint64_t leaf) {
    context_.cr0 = kCr0Pg | kCr0Wp;
    context_.cr3 = 0x1000;
    context_.cr4 = kCr4Pae;
    context_.efer = kEferLma | kEferNxe;
    put64(0x1000, 0x2000 | kAll);
    put64(0x2008, 0x3000 | kAll);
    put64(0x3008, 0x4000 | kAll);
    put64(0x4008, leaf);
  }

  GuestMemory memory_;
  PagingContext context_;
};

TEST_F(PageWalkTest, PagingOff_MapsIdentityIn32Bits) {
  const PageWalk w = walk(0x1'2345'6789, AccessKind::kWrite);
  EXPECT_TRUE(w.mapped());
  EXPECT_EQ(w.gpa, Gpa(0x2345'6789));
  EXPECT_EQ(w.depth, 0);
}

TEST_F(PageWalkTest, ThirtyTwoBit_WalksTwoLevels) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1fff;  // low bits are not part of the address
  put32(0x1000 + 4 * 0x3ff, 0x2007);
  put32(0x2000 + 4 * 0x001, 0xabc000 | 0x7);
  const PageWalk w = walk(0xffc0'1234);
  EXPECT_EQ(w.gpa, Gpa(0xabc234));
  EXPECT_EQ(w.page_size, KiB(4));
  ASSERT_EQ(w.path().size(), 2U);
  EXPECT_EQ(w.path()[0].level, 2);
  EXPECT_EQ(w.path()[0].entry, Gpa(0x1ffc));
  EXPECT_EQ(w.path()[1].value, 0xabc007U);
}

TEST_F(PageWalkTest, ThirtyTwoBitLargePage_TakesBits39To32FromPse36) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  context_.cr4 = kCr4Pse;
  put32(0x1004, 0x0080'0000 | (0x5 << 13) | 0x87);
  const PageWalk w = walk(0x0051'2345);
  EXPECT_EQ(w.gpa, Gpa(0x5'0091'2345));
  EXPECT_EQ(w.page_size, MiB(4));
}

TEST_F(PageWalkTest, ThirtyTwoBitLargePage_Bit21IsReserved) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  context_.cr4 = kCr4Pse;
  put32(0x1000, 0x0020'0087);
  EXPECT_EQ(walk(0).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, ThirtyTwoBitLargePage_AddressBitsBeyondThePhysicalWidthAreReserved) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  context_.cr4 = kCr4Pse;
  context_.physical_bits = 36;
  put32(0x1000, (0xf << 13) | 0x87);
  EXPECT_TRUE(walk(0).mapped());
  put32(0x1000, (0x10 << 13) | 0x87);
  EXPECT_EQ(walk(0).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, ThirtyTwoBitWithoutPse_BitSevenIsIgnored) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  put32(0x1000, 0x2087);
  put32(0x2000, 0x5007);
  EXPECT_EQ(walk(0x10).gpa, Gpa(0x5010));
}

TEST_F(PageWalkTest, Pae_WalksThreeLevelsFromA32ByteAlignedTable) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1020;
  context_.cr4 = kCr4Pae;
  put64(0x1020 + 8 * 3, 0x2000 | kP);  // no R/W and U/S here
  put64(0x2000 + 8 * 0x1ff, 0x3000 | kAll);
  put64(0x3000 + 8 * 2, 0x1'0000'5000 | kAll);
  context_.cpl = 3;
  const PageWalk w = walk(0xffe0'2042, AccessKind::kWrite);
  EXPECT_EQ(w.gpa, Gpa(0x1'0000'5042));
  EXPECT_EQ(w.depth, 3);
}

TEST_F(PageWalkTest, PaeLargePage_Is2MiB) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  context_.cr4 = kCr4Pae;
  put64(0x1000, 0x2000 | kP);
  put64(0x2008, 0x60'0000 | kPs | kAll);
  const PageWalk w = walk(0x30'0010);
  EXPECT_EQ(w.gpa, Gpa(0x70'0010));
  EXPECT_EQ(w.page_size, MiB(2));
}

TEST_F(PageWalkTest, PaePointer_WithWritableBitIsReserved) {
  context_.cr0 = kCr0Pg;
  context_.cr3 = 0x1000;
  context_.cr4 = kCr4Pae;
  put64(0x1000, 0x2000 | kP | kW);
  EXPECT_EQ(walk(0).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, FourLevel_FindsThePage) {
  four_level(0x7000 | kAll);
  const PageWalk w = walk(kAddress);
  ASSERT_TRUE(w.mapped());
  EXPECT_EQ(w.gpa, Gpa(0x7123));
  EXPECT_TRUE(w.writable && w.user && w.executable);
  ASSERT_EQ(w.depth, 4);
  EXPECT_EQ(w.path()[0].level, 4);
  EXPECT_EQ(w.path()[3].entry, Gpa(0x4008));
}

TEST_F(PageWalkTest, FourLevel_2MiBPage) {
  four_level(0);
  put64(0x3008, 0x60'0000 | kPs | kAll);
  const PageWalk w = walk(kAddress);
  EXPECT_EQ(w.gpa, Gpa(0x60'1123));
  EXPECT_EQ(w.page_size, MiB(2));
}

TEST_F(PageWalkTest, FourLevel_1GiBPage) {
  four_level(0);
  put64(0x2008, 0x1'4000'0000 | kPs | kAll);
  const PageWalk w = walk(kAddress);
  EXPECT_EQ(w.gpa, Gpa(0x1'4020'1123));
  EXPECT_EQ(w.page_size, GiB(1));
}

TEST_F(PageWalkTest, FourLevel_PatBitOfALargePageIsNotAddress) {
  four_level(0);
  put64(0x3008, 0x60'0000 | (1U << 12) | kPs | kAll);
  EXPECT_EQ(walk(kAddress).gpa, Gpa(0x60'1123));
}

TEST_F(PageWalkTest, FourLevel_MisalignedLargePageIsReserved) {
  four_level(0);
  put64(0x3008, 0x60'2000 | kPs | kAll);
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultReserved);
  put64(0x2008, 0x4020'0000 | kPs | kAll);
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, FourLevel_LargeBitInTheRootIsReserved) {
  four_level(0x7000 | kAll);
  put64(0x1000, 0x2000 | kPs | kAll);
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, FourLevel_BitsAboveThePhysicalWidthAreReserved) {
  four_level(0x7000 | kAll | (1ULL << 46));
  EXPECT_TRUE(walk(kAddress).mapped());
  context_.physical_bits = 46;
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code,
            kFaultPresent | kFaultReserved | kFaultWrite);
}

TEST_F(PageWalkTest, FourLevel_NonCanonicalIsNoPageFault) {
  four_level(0x7000 | kAll);
  EXPECT_EQ(walk(0x0000'8000'0000'0000).outcome, WalkOutcome::kNonCanonical);
  EXPECT_EQ(walk(0xffff'7fff'ffff'ffff).outcome, WalkOutcome::kNonCanonical);
  EXPECT_EQ(walk(0xffff'8000'0000'0000).outcome, WalkOutcome::kPageFault);
}

TEST_F(PageWalkTest, FiveLevel_WalksAndHas57BitAddresses) {
  four_level(0x7000 | kAll);
  context_.cr4 |= kCr4La57;
  context_.cr3 = 0x8000;
  put64(0x8000 + 8 * 0x100, 0x1000 | kAll);
  EXPECT_EQ(walk(0xff00'0000'0000'0000 | kAddress).gpa, Gpa(0x7123));
  EXPECT_EQ(walk(0xff00'0000'0000'0000 | kAddress).depth, 5);
  EXPECT_EQ(walk(0x0100'0000'0000'0000).outcome, WalkOutcome::kNonCanonical);
}

TEST_F(PageWalkTest, NotPresent_ReportsTheAccess) {
  four_level(0);
  EXPECT_EQ(walk(kAddress).error_code, 0U);
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code, kFaultWrite);
  EXPECT_EQ(walk(kAddress, AccessKind::kFetch).error_code, kFaultFetch);
  context_.cpl = 3;
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code, kFaultWrite | kFaultUser);
}

TEST_F(PageWalkTest, FetchBit_NeedsNxeOrSmep) {
  four_level(0);
  context_.efer = kEferLma;
  EXPECT_EQ(walk(kAddress, AccessKind::kFetch).error_code, 0U);
  context_.cr4 |= kCr4Smep;
  EXPECT_EQ(walk(kAddress, AccessKind::kFetch).error_code, kFaultFetch);
}

TEST_F(PageWalkTest, ReadOnly_StopsTheSupervisorOnlyWithWp) {
  four_level(0x7000 | kP | kU);
  EXPECT_TRUE(walk(kAddress).mapped());
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code, kFaultPresent | kFaultWrite);
  context_.cr0 = kCr0Pg;
  EXPECT_TRUE(walk(kAddress, AccessKind::kWrite).mapped());
  context_.cpl = 3;
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code,
            kFaultPresent | kFaultWrite | kFaultUser);
}

TEST_F(PageWalkTest, ReadOnly_AtAnUpperLevelCounts) {
  four_level(0x7000 | kAll);
  put64(0x2008, 0x3000 | kP | kU);
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code, kFaultPresent | kFaultWrite);
}

TEST_F(PageWalkTest, SupervisorPage_StopsTheUser) {
  four_level(0x7000 | kP | kW);
  context_.cpl = 3;
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultUser);
  context_.implicit_supervisor = true;
  EXPECT_TRUE(walk(kAddress).mapped());
}

TEST_F(PageWalkTest, NoExecute_StopsOnlyFetches) {
  four_level(0x7000 | kAll | kNx);
  EXPECT_TRUE(walk(kAddress).mapped());
  EXPECT_EQ(walk(kAddress, AccessKind::kFetch).error_code, kFaultPresent | kFaultFetch);
}

TEST_F(PageWalkTest, NoExecute_WithoutNxeIsReserved) {
  four_level(0x7000 | kAll | kNx);
  context_.efer = kEferLma;
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultReserved);
}

TEST_F(PageWalkTest, Smep_StopsSupervisorFetchesFromUserPages) {
  four_level(0x7000 | kAll);
  EXPECT_TRUE(walk(kAddress, AccessKind::kFetch).mapped());
  context_.cr4 |= kCr4Smep;
  EXPECT_EQ(walk(kAddress, AccessKind::kFetch).error_code, kFaultPresent | kFaultFetch);
  context_.cpl = 3;
  EXPECT_TRUE(walk(kAddress, AccessKind::kFetch).mapped());
}

TEST_F(PageWalkTest, Smap_StopsSupervisorDataUnlessAc) {
  four_level(0x7000 | kAll);
  context_.cr4 |= kCr4Smap;
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent);
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code, kFaultPresent | kFaultWrite);
  context_.rflags = kFlagAc;
  EXPECT_TRUE(walk(kAddress).mapped());
  context_.implicit_supervisor = true;
  EXPECT_FALSE(walk(kAddress).mapped());
}

TEST_F(PageWalkTest, Smap_LeavesSupervisorPagesAlone) {
  four_level(0x7000 | kP | kW);
  context_.cr4 |= kCr4Smap;
  EXPECT_TRUE(walk(kAddress, AccessKind::kWrite).mapped());
}

TEST_F(PageWalkTest, ProtectionKey_DeniesAccessAndWrite) {
  four_level(0x7000 | kAll | (5ULL << 59));
  context_.cr4 |= kCr4Pke;
  context_.cpl = 3;
  EXPECT_TRUE(walk(kAddress, AccessKind::kWrite).mapped());
  context_.pkru = 2U << 10;
  EXPECT_TRUE(walk(kAddress).mapped());
  EXPECT_EQ(walk(kAddress, AccessKind::kWrite).error_code,
            kFaultPresent | kFaultWrite | kFaultUser | kFaultProtectionKey);
  context_.pkru = 1U << 10;
  EXPECT_EQ(walk(kAddress).error_code, kFaultPresent | kFaultUser | kFaultProtectionKey);
  EXPECT_TRUE(walk(kAddress, AccessKind::kFetch).mapped());
}

TEST_F(PageWalkTest, ProtectionKey_WriteDisableSparesTheSupervisorWithoutWp) {
  four_level(0x7000 | kAll);
  context_.cr4 |= kCr4Pke;
  context_.pkru = 2;
  EXPECT_FALSE(walk(kAddress, AccessKind::kWrite).mapped());
  context_.cr0 = kCr0Pg;
  EXPECT_TRUE(walk(kAddress, AccessKind::kWrite).mapped());
}

TEST_F(PageWalkTest, Marks_AreSetAsHardwareDoes) {
  four_level(0x7000 | kAll);
  ASSERT_TRUE(walk(kAddress).mapped());
  EXPECT_EQ(get64(0x4008) & (kEntryAccessed | kEntryDirty), 0U);
  ASSERT_TRUE(walk(kAddress, AccessKind::kRead, WalkMarks::kAccessedAndDirty).mapped());
  EXPECT_NE(get64(0x1000) & kEntryAccessed, 0U);
  EXPECT_EQ(get64(0x4008) & (kEntryAccessed | kEntryDirty), kEntryAccessed);
  ASSERT_TRUE(walk(kAddress, AccessKind::kWrite, WalkMarks::kAccessedAndDirty).mapped());
  EXPECT_EQ(get64(0x4008) & (kEntryAccessed | kEntryDirty), kEntryAccessed | kEntryDirty);
  EXPECT_EQ(get64(0x3008) & kEntryDirty, 0U);
}

TEST_F(PageWalkTest, Marks_AreNotSetByAFault) {
  four_level(0x7000 | kP);
  ASSERT_FALSE(walk(kAddress, AccessKind::kWrite, WalkMarks::kAccessedAndDirty).mapped());
  EXPECT_EQ(get64(0x1000) & kEntryAccessed, 0U);
}

TEST_F(PageWalkTest, TableOutsideRam_IsNotPresent) {
  four_level(0);
  put64(0x2008, 0x000f'ffff'ffff'f000 | kAll);
  const PageWalk w = walk(kAddress, AccessKind::kWrite);
  EXPECT_EQ(w.outcome, WalkOutcome::kPageFault);
  EXPECT_EQ(w.error_code, kFaultWrite);
  EXPECT_TRUE(w.table_outside_ram);
  EXPECT_EQ(w.depth, 2);
}

TEST_F(PageWalkTest, RootOutsideRam_IsNotPresent) {
  four_level(0);
  context_.cr3 = ~0ULL;
  EXPECT_TRUE(walk(kAddress).table_outside_ram);
  context_.efer = 0;
  EXPECT_TRUE(walk(kAddress).table_outside_ram);
  context_.cr4 = 0;
  EXPECT_TRUE(walk(kAddress).table_outside_ram);
}

TEST_F(PageWalkTest, TableThatMapsItself_EndsAfterFourLevels) {
  four_level(0);
  put64(0x1000 + 8 * 0x1ff, 0x1000 | kAll);
  const PageWalk w = walk(0xffff'ffff'ffff'f008);
  EXPECT_EQ(w.gpa, Gpa(0x1008));
  EXPECT_EQ(w.depth, 4);
}

TEST_F(PageWalkTest, VirtualCopy_SpansPages) {
  four_level(0x7000 | kAll);
  put64(0x4010, 0x9000 | kAll);  // the next virtual page lies elsewhere
  const std::array<std::byte, 6> out{std::byte{1}, std::byte{2}, std::byte{3},
                                     std::byte{4}, std::byte{5}, std::byte{6}};
  ASSERT_TRUE(write_virtual(memory_, context_, Gva(0x40201ffd), out));
  EXPECT_EQ(memory_.read<std::uint8_t>(Gpa(0x7fff)).value(), 3);
  EXPECT_EQ(memory_.read<std::uint8_t>(Gpa(0x9000)).value(), 4);
  std::array<std::byte, 6> in{};
  ASSERT_TRUE(read_virtual(memory_, context_, Gva(0x40201ffd), in));
  EXPECT_EQ(in, out);
}

TEST_F(PageWalkTest, VirtualWrite_IsAllOrNothing) {
  four_level(0x7000 | kAll);
  const std::array<std::byte, 4> out{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  const VirtualAccess access = write_virtual(memory_, context_, Gva(0x40201ffe), out);
  EXPECT_EQ(access.outcome, VirtualAccess::Outcome::kFault);
  EXPECT_EQ(access.walk.address, Gva(0x40202000));
  EXPECT_EQ(memory_.read<std::uint16_t>(Gpa(0x7ffe)).value(), 0);
}

TEST_F(PageWalkTest, VirtualRead_SaysWhatIsNotRam) {
  four_level(0xfee0'0000 | kAll);
  std::array<std::byte, 4> in{};
  const VirtualAccess access = read_virtual(memory_, context_, Gva(kAddress), in);
  EXPECT_EQ(access.outcome, VirtualAccess::Outcome::kNotRam);
  EXPECT_EQ(access.walk.gpa, Gpa(0xfee0'0123));
}

TEST_F(PageWalkTest, VirtualRange_WrapsAsAddressesDo) {
  context_ = {};
  std::vector<VirtualPiece> pieces;
  ASSERT_TRUE(translate_range(memory_, context_, Gva(0xffff'ffff), 2, AccessKind::kRead,
                              WalkMarks::kNone, pieces));
  ASSERT_EQ(pieces.size(), 2U);
  EXPECT_EQ(pieces[1].gpa, Gpa(0));
}

TEST_F(PageWalkTest, CompareExchange_Of16Bytes) {
  Bytes16 old{};
  Bytes16 next{};
  next.fill(std::byte{0x5a});
  EXPECT_TRUE(memory_.compare_exchange(Gpa(0x40), old, next).value());
  EXPECT_FALSE(memory_.compare_exchange(Gpa(0x40), old, next).value());
  EXPECT_EQ(old, next);
  EXPECT_EQ(memory_.read<std::uint64_t>(Gpa(0x48)).value(), 0x5a5a5a5a5a5a5a5aULL);
  EXPECT_FALSE(memory_.compare_exchange(Gpa(0x48), old, next));
  EXPECT_FALSE(memory_.compare_exchange(Gpa(MiB(1)), old, next));
}

}  // namespace
}  // namespace vmm

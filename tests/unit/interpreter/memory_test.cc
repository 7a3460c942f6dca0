// Translations, faults, the stack, control flow, lines of code, and the guest's page tables.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/interpreter_guest.h"
#include "vmm/interpreter/line_table.h"

namespace vmm::interpreter {
namespace {

using Bytes = std::vector<std::uint8_t>;

class MemoryTest : public testing::Test, protected CoreGuest {
 protected:
  // mov rax, [rbx] and mov [rbx], rax
  Next read(std::uint64_t address) {
    cpu.file[x86::kRbx] = address;
    return step({0x48, 0x8b, 0x03});
  }
  Next write(std::uint64_t address, std::uint64_t value) {
    cpu.file[x86::kRbx] = address;
    cpu.file[x86::kRax] = value;
    return step({0x48, 0x89, 0x03});
  }
  void faults(Next next, std::uint64_t address, std::uint32_t error_code) {
    ASSERT_EQ(next, Next::kStop);
    ASSERT_TRUE(cpu.stop == Stop::kPageFault);
    EXPECT_EQ(cpu.fault.address, address);
    EXPECT_EQ(cpu.fault.error_code, error_code);
  }
  void is_kvms(Next next, Stop stop = Stop::kKvm) {
    ASSERT_EQ(next, Next::kStop);
    EXPECT_TRUE(cpu.stop == stop);
  }
  void set_cr4(std::uint64_t cr4) {
    cpu.system.cr4 = cr4;
    tlb.set_context(x86::paging_context(cpu.system, 0));
  }
};

TEST_F(MemoryTest, Faults_AreThoseOfTheProcessor) {
  map(0x30, 0);
  faults(read(0x30008), 0x30008, 0);
  faults(write(0x30008, 1), 0x30008, kFaultWrite);
  map(0x31, 0x31000 | kEntryPresent);
  EXPECT_EQ(read(0x31000), Next::kOn);
  faults(write(0x31000, 1), 0x31000, kFaultPresent | kFaultWrite);
  // Not canonical: KVM's.
  is_kvms(read(0x800000000000));
}

TEST_F(MemoryTest, AccessesOverTwoPages) {
  put<std::uint64_t>(0x30ffc, 0x1122334455667788);
  EXPECT_EQ(read(0x30ffc), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 0x1122334455667788U);
  EXPECT_EQ(write(0x30ffd, 0x0102030405060708), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(0x30ffd), 0x0102030405060708U);
  map(0x31, 0);
  faults(read(0x30ffc), 0x31000, 0);
  put<std::uint32_t>(0x30ffc, 0x5a5a5a5a);
  faults(write(0x30ffc, 0), 0x31000, kFaultWrite);
  EXPECT_EQ(at<std::uint32_t>(0x30ffc), 0x5a5a5a5aU);  // nothing of it is done
}

TEST_F(MemoryTest, TranslationsAreRememberedUntilTheyAreForgotten) {
  put<std::uint64_t>(0x30000, 30);
  put<std::uint64_t>(0x31000, 31);
  EXPECT_EQ(read(0x30000), Next::kOn);
  put(kLeaves + 0x30 * 8, 0x31000 | kKernelPage);
  EXPECT_EQ(read(0x30000), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 30U);
  tlb.forget();
  EXPECT_EQ(read(0x30000), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 31U);
  // So often that the counter of generations runs over.
  for (int i = 0; i < 5000; ++i) tlb.forget();
  map(0x30, 0x30000 | kKernelPage);
  EXPECT_EQ(read(0x30000), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 30U);
}

TEST_F(MemoryTest, AccessedAndDirtyAreSet) {
  EXPECT_EQ(read(0x30000), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(kLeaves + 0x30 * 8) & (kEntryAccessed | kEntryDirty), kEntryAccessed);
  EXPECT_EQ(write(0x30000, 1), Next::kOn);
  EXPECT_NE(at<std::uint64_t>(kLeaves + 0x30 * 8) & kEntryDirty, 0U);
}

TEST_F(MemoryTest, SupervisorAccessPrevention) {
  map(0x30, 0x30000 | kKernelPage | kEntryUser);
  EXPECT_EQ(read(0x30000), Next::kOn);
  set_cr4(x86::kCr4Pae | x86::kCr4Smap);
  faults(read(0x30000), 0x30000, kFaultPresent);
  EXPECT_EQ(step({0x0f, 0x01, 0xcb}), Next::kOn);  // stac
  EXPECT_EQ(read(0x30000), Next::kOn);
  EXPECT_EQ(step({0x0f, 0x01, 0xca}), Next::kOn);  // clac
  faults(read(0x30000), 0x30000, kFaultPresent);
  EXPECT_EQ(read(0x31000), Next::kOn);
}

TEST_F(MemoryTest, UserPagesWithAProtectionKey_AreKvms) {
  constexpr std::uint64_t kKey3 = std::uint64_t{3} << 59;
  map(0x30, 0x30000 | kKernelPage | kEntryUser | kKey3);
  map(0x31, 0x31000 | kKernelPage | kKey3);
  EXPECT_EQ(read(0x30000), Next::kOn);
  set_cr4(x86::kCr4Pae | x86::kCr4Pke);
  is_kvms(read(0x30000));
  EXPECT_EQ(read(0x31000), Next::kOn);  // keys are for user pages
}

TEST_F(MemoryTest, WhatIsWrittenIsMarked) {
  std::array<std::uint64_t, 16> marks{};
  memory.regions()[0].written()->take(marks);
  EXPECT_EQ(write(0x30008, 1), Next::kOn);
  marks = {};
  memory.regions()[0].written()->take(marks);
  EXPECT_NE(marks[0] & std::uint64_t{1} << 0x30, 0U);
}

TEST_F(MemoryTest, TheStack) {
  cpu.file[x86::kRcx] = 0x1122334455667788;
  EXPECT_EQ(step({0x51}), Next::kOn);  // push rcx
  EXPECT_EQ(cpu.file[x86::kRsp], kStack - 8);
  EXPECT_EQ(at<std::uint64_t>(kStack - 8), 0x1122334455667788U);
  EXPECT_EQ(step({0x41, 0x58}), Next::kOn);  // pop r8
  EXPECT_EQ(cpu.file[x86::kR8], 0x1122334455667788U);
  EXPECT_EQ(step({0x54}), Next::kOn);  // push rsp: the value before
  EXPECT_EQ(at<std::uint64_t>(kStack - 8), kStack);
  EXPECT_EQ(step({0x5c}), Next::kOn);  // pop rsp
  EXPECT_EQ(cpu.file[x86::kRsp], kStack);
  EXPECT_EQ(step({0x6a, 0xff}), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(kStack - 8), ~0ULL);
  EXPECT_EQ(step({0x68, 0, 0, 0, 0x80}), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(kStack - 16), 0xffffffff80000000U);
  cpu.file[x86::kRbp] = kStack - 16;
  EXPECT_EQ(step({0xc9}), Next::kOn);  // leave
  EXPECT_EQ(cpu.file[x86::kRbp], 0xffffffff80000000U);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack - 8);
  // A fault leaves RSP.
  map(0x3f, 0);
  cpu.file[x86::kRsp] = kStack;
  faults(step({0x51}), kStack - 8, kFaultWrite);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack);
}

TEST_F(MemoryTest, FlagsOnTheStack) {
  cpu.set_rflags(x86::kFlagIf | x86::kFlagCf | kFlagOf | x86::kFlagRf | 2);
  EXPECT_EQ(step({0x9c}), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(kStack - 8), x86::kFlagIf | x86::kFlagCf | kFlagOf | 2);
  put<std::uint64_t>(kStack - 8, x86::kFlagAc | x86::kFlagZf | 2);
  EXPECT_EQ(step({0x9d}), Next::kJump);
  EXPECT_EQ(cpu.rflags(), x86::kFlagAc | x86::kFlagZf | 2);
  cpu.file[x86::kRsp] = kStack - 8;
  put<std::uint64_t>(kStack - 8, x86::kFlagTf | 2);
  is_kvms(step({0x9d}), Stop::kKvmToUser);
}

TEST_F(MemoryTest, JumpsCallsAndReturns) {
  EXPECT_EQ(step({0xeb, 0xfe}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode);
  EXPECT_EQ(step({0xe9, 0, 1, 0, 0}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode + 0x105);
  EXPECT_EQ(step({0xe8, 0xfb, 0xff, 0xff, 0xff}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode);
  EXPECT_EQ(at<std::uint64_t>(kStack - 8), kCode + 5);
  EXPECT_EQ(step({0xc3}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode + 5);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack);
  cpu.file[x86::kRdx] = 0x12345;
  EXPECT_EQ(step({0xff, 0xe2}), Next::kJump);  // jmp rdx
  EXPECT_EQ(cpu.next_rip(), 0x12345U);
  EXPECT_EQ(step({0xff, 0xd2}), Next::kJump);  // call rdx
  EXPECT_EQ(cpu.next_rip(), 0x12345U);
  EXPECT_EQ(step({0xc2, 0x10, 0}), Next::kJump);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack + 16);
  put<std::uint64_t>(kData, 0x54321);
  cpu.file[x86::kRbx] = kData;
  EXPECT_EQ(step({0xff, 0x23}), Next::kJump);  // jmp [rbx]
  EXPECT_EQ(cpu.next_rip(), 0x54321U);
  // What is not canonical faults at the jump.
  cpu.file[x86::kRdx] = std::uint64_t{1} << 60;
  is_kvms(step({0xff, 0xe2}));
  is_kvms(step({0xff, 0xd2}));
}

TEST_F(MemoryTest, ConditionalJumps) {
  cpu.set_rflags(x86::kFlagZf | 2);
  EXPECT_EQ(step({0x74, 0x10}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode + 0x12);
  EXPECT_EQ(step({0x75, 0x10}), Next::kOn);
  EXPECT_EQ(step({0x0f, 0x84, 0, 1, 0, 0}), Next::kJump);
  cpu.file[x86::kRcx] = 0;
  EXPECT_EQ(step({0xe3, 0x10}), Next::kJump);
  cpu.file[x86::kRcx] = 2;
  EXPECT_EQ(step({0xe3, 0x10}), Next::kOn);
  EXPECT_EQ(step({0xe2, 0x10}), Next::kJump);
  EXPECT_EQ(step({0xe2, 0x10}), Next::kOn);
}

TEST_F(MemoryTest, SegmentBasesAndRipRelativeAddresses) {
  put<std::uint64_t>(kData + 0x18, 5);
  put<std::uint64_t>(kData + 0x28, 6);
  cpu.segment_base = {0, kData, kData + 0x10};
  EXPECT_EQ(step({0x64, 0x48, 0x8b, 0x04, 0x25, 0x18, 0, 0, 0}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 5U);
  EXPECT_EQ(step({0x65, 0x48, 0x8b, 0x04, 0x25, 0x18, 0, 0, 0}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 6U);
  put<std::uint64_t>(kCode + 7 + 0x100, 7);
  EXPECT_EQ(step({0x48, 0x8b, 0x05, 0, 1, 0, 0}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 7U);
}

TEST_F(MemoryTest, LongStrings_ComeInParts) {
  cpu.file[x86::kRdi] = 0x30000;
  cpu.file[x86::kRcx] = 3 * 4096 / 8;
  cpu.file[x86::kRax] = 0x0101010101010101;
  const Bytes stos{0xf3, 0x48, 0xab};
  EXPECT_EQ(step(stos), Next::kStop);
  EXPECT_TRUE(cpu.stop == Stop::kAgain);
  EXPECT_EQ(cpu.file[x86::kRdi], 0x31000U);
  EXPECT_EQ(step(stos), Next::kStop);
  map(0x32, 0);
  faults(step(stos), 0x32000, kFaultWrite);
  EXPECT_EQ(cpu.file[x86::kRcx], 4096U / 8);
  map(0x32, 0x32000 | kKernelPage);
  EXPECT_EQ(step(stos), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(0x32ff8), 0x0101010101010101U);
}

// ---- page tables

class TableTest : public MemoryTest {
 protected:
  void SetUp() override { tables.add_root(0, Gpa(kRoot), 4); }
  std::uint8_t mark(std::uint64_t gpa) { return tables.mark(Gpa(gpa))->load(); }
};

TEST_F(TableTest, AllBehindARootAreKnown) {
  EXPECT_EQ(mark(kRoot), 8);
  EXPECT_EQ(mark(kLevel3), 4);
  EXPECT_EQ(mark(kLevel2), 2);
  EXPECT_EQ(mark(kLeaves), 1);
  EXPECT_EQ(mark(kData), 0);
  EXPECT_EQ(tables.size(), 4U);
}

TEST_F(TableTest, AnEntryThatWasThere_IsKvmsToChange) {
  is_kvms(write(kLeaves + 0x50 * 8, 0));
  EXPECT_TRUE(cpu.keeps_translations);
  EXPECT_EQ(at<std::uint64_t>(kLeaves + 0x50 * 8) & kEntryPresent, kEntryPresent);
  EXPECT_EQ(cpu.refused.mark, tables.mark(Gpa(kLeaves)));
  cpu.file[x86::kRbx] = kLeaves + 0x50 * 8;
  is_kvms(step({0x48, 0x87, 0x03}));        // xchg
  is_kvms(step({0xf0, 0x80, 0x23, 0xfd}));  // lock and byte
  is_kvms(step({0xc6, 0x43, 0x03, 0x00}));  // a byte of it
  is_kvms(step({0x48, 0x89, 0x43, 0xfc}));  // half of it, and of the one before
  cpu.file[x86::kRdi] = kLeaves + 0x50 * 8;
  cpu.file[x86::kRcx] = 4;
  is_kvms(step({0xf3, 0x48, 0xab}));
  EXPECT_EQ(cpu.file[x86::kRcx], 4U);
}

TEST_F(TableTest, AnEntryThatWasNot_IsWrittenHere) {
  put<std::uint64_t>(kLeaves + 0x50 * 8, 0);
  EXPECT_EQ(write(kLeaves + 0x50 * 8, 0x50000 | kKernelPage), Next::kOn);
  EXPECT_EQ(at<std::uint64_t>(kLeaves + 0x50 * 8), 0x50000 | kKernelPage);
  EXPECT_EQ(cpu.refused.at, nullptr);
}

TEST_F(TableTest, WhatANewEntryLeadsTo_IsATable) {
  // A tree that is made first and then hung into the root.
  put<std::uint64_t>(0x60000, 0x61000 | kKernelPage);
  put<std::uint64_t>(0x61000, 0x62000 | kKernelPage);
  put<std::uint64_t>(0x61008, 0x200000 | kKernelPage | kEntryLarge);
  EXPECT_EQ(mark(0x60000), 0);
  EXPECT_EQ(write(kRoot + 8, 0x60000 | kKernelPage), Next::kOn);
  EXPECT_EQ(mark(0x60000), 4);
  EXPECT_EQ(mark(0x61000), 2);
  EXPECT_EQ(mark(0x62000), 1);
  EXPECT_EQ(mark(0x200000), 0);
}

TEST_F(TableTest, ATableThatLeadsToItself_Ends) {
  EXPECT_EQ(write(kRoot + 0x100, kRoot | kKernelPage), Next::kOn);
  EXPECT_EQ(mark(kRoot), 8 | 4 | 2 | 1);
}

TEST_F(TableTest, WhatOthersHaveWritten_IsFound) {
  put<std::uint64_t>(kLevel2 + 8, 0x63000 | kKernelPage);
  EXPECT_EQ(mark(0x63000), 0);
  tables.look_again();
  EXPECT_EQ(mark(0x63000), 1);
}

TEST_F(TableTest, BeginsAnew_WithWhatIsBehindTheRootsThatAreLoaded) {
  put<std::uint64_t>(0x60000, 0x61000 | kKernelPage);
  tables.add_root(0, Gpa(0x60000), 4);
  EXPECT_EQ(tables.size(), 6U);
  ASSERT_TRUE(tables.begin_anew());
  EXPECT_EQ(drops, 0);  // not worth it yet
  while (!tables.count_refusal()) {
  }
  put<std::uint64_t>(0x60000, 0x62000 | kKernelPage);
  ASSERT_TRUE(tables.begin_anew());
  EXPECT_EQ(drops, 1);
  EXPECT_EQ(tables.size(), 2U);
  EXPECT_EQ(mark(0x60000), 8);
  EXPECT_EQ(mark(0x62000), 4);
  EXPECT_EQ(mark(kRoot), 0);
  ASSERT_TRUE(tables.begin_anew());
  EXPECT_EQ(drops, 1);
}

TEST_F(TableTest, ReadModifyWrite_OfWhatWasNotThere) {
  put<std::uint64_t>(kLeaves + 0x50 * 8, 0x50000);
  cpu.file[x86::kRbx] = kLeaves + 0x50 * 8;
  EXPECT_EQ(step({0x48, 0x83, 0x0b, 0x02}), Next::kOn);  // or
  EXPECT_EQ(at<std::uint64_t>(kLeaves + 0x50 * 8), 0x50002U);
  // In an upper table it might come to lead somewhere.
  put<std::uint64_t>(kLevel2 + 0x50 * 8, 0x50000);
  cpu.file[x86::kRbx] = kLevel2 + 0x50 * 8;
  is_kvms(step({0x48, 0x83, 0x0b, 0x02}));
}

// ---- lines

TEST(BlockTest, EndsAtAJump) {
  const Bytes code{0x90, 0x90, 0xeb, 0x00, 0x90};
  Block block;
  ASSERT_TRUE(decode_block(std::as_bytes(std::span(code)), block));
  EXPECT_EQ(block.count, 3);
  EXPECT_EQ(block.size, 4);
}

TEST(BlockTest, EndsAtWhatIsKvms) {
  const Bytes code{0x90, 0x0f, 0xa2, 0xd9, 0xe8, 0x90};  // cpuid is known, fld1 is not
  Block block;
  ASSERT_TRUE(decode_block(std::as_bytes(std::span(code)), block));
  EXPECT_EQ(block.count, 3);
}

TEST(BlockTest, NeedsAWholeInstruction) {
  const Bytes code{0x48, 0x8b};
  Block block;
  EXPECT_FALSE(decode_block(std::as_bytes(std::span(code)), block));
}

// As the cache is asked.
std::span<const Insn> find_in(LineCache& cache, const Bytes& code, std::size_t at = 0) {
  return cache.find(at, std::as_bytes(std::span(code)).subspan(at));
}

TEST(LineCache, ChangedCode_IsDecodedAnew) {
  SharedLines shared;
  LineCache cache(shared);
  Bytes code{0x90, 0x90, 0xc3, 0x90};
  const auto line = find_in(cache, code);
  ASSERT_EQ(line.size(), 3U);
  EXPECT_EQ(find_in(cache, code).data(), line.data());
  code[1] = 0xc3;
  EXPECT_EQ(find_in(cache, code).size(), 2U);
}

TEST(LineCache, MoreLinesThanThereIsRoomFor_AreDecodedAnew) {
  SharedLines shared;
  LineCache cache(shared);
  Bytes code(1 << 18, 0x90);  // a line of twelve at each place, 400 bytes and more in the cache
  for (int round = 0; round < 2; ++round) {
    for (std::size_t at = 0; at + 12 < code.size(); at += 3) {
      ASSERT_EQ(find_in(cache, code, at).size(), Block::kInsns) << at;
    }
  }
}

// Two machines with the same kernel, somewhere else in this process.
TEST(LineCache, SameCodeAtTheSamePlace_isDecodedOnce) {
  SharedLines shared;
  LineCache one(shared), other(shared);
  const Bytes code{0x90, 0x90, 0xc3}, copy = code;
  EXPECT_EQ(find_in(one, code).data(), find_in(other, copy).data());
}

TEST(LineCache, OtherCodeAtTheSamePlace_isItsOwn) {
  SharedLines shared;
  LineCache one(shared), other(shared);
  const Bytes code{0x90, 0x90, 0xc3}, different{0x90, 0xc3, 0x90};
  EXPECT_EQ(find_in(one, code).size(), 3U);
  EXPECT_EQ(find_in(other, different).size(), 2U);
  EXPECT_EQ(find_in(one, code).size(), 3U);
}

// Places whose slots are the same: some find no slot in the shared table.
TEST(LineCache, PlacesThatWantTheSameSlots_areAllKept) {
  SharedLines shared;
  LineCache one(shared), other(shared);
  constexpr std::uint64_t kApart = std::uint64_t{1} << 45;  // no bit of a slot's number
  const Bytes code{0x90, 0x90, 0xc3};
  std::array<const Insn*, 6> lines{}, again{};
  int same = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i] = one.find(i * kApart, std::as_bytes(std::span(code))).data();
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    again[i] = one.find(i * kApart, std::as_bytes(std::span(code))).data();
    if (other.find(i * kApart, std::as_bytes(std::span(code))).data() == lines[i]) ++same;
  }
  EXPECT_EQ(again, lines);
  EXPECT_GE(same, 4);
}

TEST(LineCache, ManyLinesOfItsOwn_areKept) {
  SharedLines shared;
  LineCache cache(shared);
  const Bytes code{0x90, 0x90, 0xc3};
  // Twice as many to a set as there are slots: half of them are not in the shared table.
  const auto find_all = [&] {
    std::vector<const Insn*> lines;
    for (std::uint64_t place = 0; place < 1000; ++place) {
      for (std::uint64_t other = 0; other < 8; ++other) {
        lines.push_back(cache.find(place + (other << 45), std::as_bytes(std::span(code))).data());
      }
    }
    return lines;
  };
  (void)find_all();  // the table for them becomes larger
  const auto lines = find_all();
  EXPECT_EQ(find_all(), lines);
}

TEST(LineCache, ManyThreadsFindWholeLines) {
  SharedLines shared;
  const Bytes code(1 << 14, 0x90);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      LineCache cache(shared);
      for (std::size_t at = 0; at + 12 < code.size(); ++at) {
        const auto line = find_in(cache, code, at);
        const bool whole = line.size() == Block::kInsns &&
                           std::all_of(line.begin(), line.end(), [](const Insn& insn) {
                             return insn.length == 1 && insn.run != nullptr;
                           });
        if (!whole) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace vmm::interpreter

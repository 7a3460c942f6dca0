#include "vmm/debug/symbols.h"

#include <gtest/gtest.h>

namespace vmm::debug {
namespace {

constexpr std::string_view kMap =
    "0000000000000000 A fixed\n"
    "ffffffff81000000 T _text\n"
    "ffffffff81800040 T entry_SYSCALL_64\n"
    "ffffffff81800100 t later\t[module]\n";

CpuState with_lstar(std::uint64_t value) {
  CpuState state;
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    if (kNamedMsrs[i].name == "lstar") state.msrs[i] = value;
  }
  return state;
}

TEST(Symbols, MapIsRead) {
  const auto symbols = Symbols::parse_map(kMap);
  ASSERT_TRUE(symbols);
  EXPECT_EQ(symbols->find("_text"), 0xffffffff81000000U);
  EXPECT_EQ(symbols->find("later"), 0xffffffff81800100U);
  EXPECT_EQ(symbols->find("fixed"), std::nullopt);
}

TEST(Symbols, AddressHasANameWithAnOffset) {
  const auto symbols = Symbols::parse_map(kMap);
  EXPECT_EQ(symbols->name_of(0xffffffff81000000), "_text");
  EXPECT_EQ(symbols->name_of(0xffffffff81800050), "entry_SYSCALL_64+0x10");
  EXPECT_EQ(symbols->name_of(0x1000), "");
  EXPECT_EQ(symbols->name_of(0xffffffffc0000000), "");
}

TEST(Symbols, OffsetIsThatOfTheSystemCallEntry) {
  const auto symbols = Symbols::parse_map(kMap);
  EXPECT_EQ(symbols->kernel_offset(with_lstar(0xffffffff81800040 + 0x1a000000), std::nullopt),
            0x1a000000U);
  EXPECT_EQ(symbols->kernel_offset(with_lstar(0xffffffff81800040), std::nullopt), 0U);
}

TEST(Symbols, EntryOfAnotherKernelGivesNoOffset) {
  const auto symbols = Symbols::parse_map(kMap);
  EXPECT_EQ(symbols->kernel_offset(with_lstar(0), std::nullopt), std::nullopt);
  EXPECT_EQ(symbols->kernel_offset(with_lstar(0), 0x1000000), 0x1000000U);  // until it tells
  EXPECT_EQ(symbols->kernel_offset(with_lstar(0xffffffff81800041), std::nullopt), std::nullopt);
}

TEST(Symbols, OtherFilesAreRefused) {
  EXPECT_FALSE(Symbols::parse_map("hello\n"));
  EXPECT_FALSE(Symbols::parse_map("ffffffff81000000\n"));
  EXPECT_FALSE(
      Symbols::parse_elf("\x7f"
                         "ELF"));
  EXPECT_FALSE(Symbols::load("/nonexistent"));
}

}  // namespace
}  // namespace vmm::debug

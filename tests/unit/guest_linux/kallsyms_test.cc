#include "vmm/guest_linux/kallsyms.h"

#include <gtest/gtest.h>

#include <array>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

constexpr std::array<std::string_view, 3> kWanted{"init_task", "modules", "prb"};

// Tokens are letters, and 1 for "task".
class Kallsyms : public testing::Test {
 protected:
  Kallsyms() {
    std::string tokens;
    for (unsigned i = 0; i < 256; ++i) {
      tokens += i == 1 ? std::string("task") : std::string(1, static_cast<char>(i == 0 ? ' ' : i));
      tokens += '\0';
    }
    kernel_.put_text(0x10000, tokens);
    kernel_.put_text(0x20000, std::string_view("\x04"
                                               "D__x"
                                               "\x07"
                                               "Dinit_\x01"
                                               "\x08"
                                               "dmodules"));
    kernel_.put(0x30000, std::uint32_t{3});
    kernel_.put(0x31000, FakeKernel::kBase);
  }

  void put_offsets(std::int32_t a, std::int32_t b, std::int32_t c) {
    kernel_.put(0x32000, std::array<std::int32_t, 3>{a, b, c});
  }

  auto find() {
    const auto table = VmcoreinfoTable::parse(
        "SYMBOL(kallsyms_names)=ffffffff80020000\nSYMBOL(kallsyms_num_syms)=ffffffff80030000\n"
        "SYMBOL(kallsyms_token_table)=ffffffff80010000\n"
        "SYMBOL(kallsyms_offsets)=ffffffff80032000\n"
        "SYMBOL(kallsyms_relative_base)=ffffffff80031000\n");
    return find_kallsyms(kernel_.view(), table, kWanted);
  }

  FakeKernel kernel_;
};

TEST_F(Kallsyms, DistancesDownwards) {
  put_offsets(0x1000, -1 - 0x5000, -1 - 0x6000);
  const auto found = find();
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ(found->at("init_task"), FakeKernel::kBase + 0x5000);
  EXPECT_EQ(found->at("modules"), FakeKernel::kBase + 0x6000);
}

TEST_F(Kallsyms, Distances) {
  put_offsets(0, 0x5000, 0x6000);
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->at("init_task"), FakeKernel::kBase + 0x5000);
}

TEST_F(Kallsyms, LongNamesArePassedOver) {
  put_offsets(0, 0x5000, 0x6000);
  std::string names = "\x82\x01";  // 130
  names += std::string(130, 'x') +
           "\x07"
           "Dinit_\x01";
  kernel_.put_text(0x20000, names);
  kernel_.put(0x30000, std::uint32_t{2});
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->at("init_task"), FakeKernel::kBase + 0x5000);
}

TEST_F(Kallsyms, TablesThatLeadOutOfMemory) {
  put_offsets(0, 0x5000, 0x6000);
  kernel_.put(0x30000, std::uint32_t{4'000'000});
  EXPECT_FALSE(find());
  kernel_.put(0x30000, ~std::uint32_t{0});
  EXPECT_FALSE(find());
  kernel_.put(0x30000, std::uint32_t{0});
  EXPECT_FALSE(find());
}

TEST_F(Kallsyms, TokensWithoutAnEnd) {
  kernel_.put_text(0x10000, std::string(0x10000, 'x'));
  EXPECT_FALSE(find());
}

}  // namespace
}  // namespace vmm::guest_linux

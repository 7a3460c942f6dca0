#include "vmm/guest_linux/guest_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

using testing::HasSubstr;

constexpr std::array<std::string_view, 1> kThing{"thing"};

TEST(Vmcoreinfo, IsFoundInMemory) {
  FakeKernel kernel;
  kernel.put_vmcoreinfo("OSRELEASE=6.1.0\nKERNELOFFSET=1a00000\nSYMBOL(prb)=ffffffff81234568\n");
  const auto table = VmcoreinfoTable::parse(find_vmcoreinfo(kernel.memory()));
  EXPECT_EQ(table.symbol("prb"), 0xffffffff81234568u);
  EXPECT_EQ(table.kernel_offset(), 0x1a00000u);
  EXPECT_EQ(table.symbol("other"), std::nullopt);
}

TEST(Vmcoreinfo, LinesThatSayNothing) {
  const auto table =
      VmcoreinfoTable::parse("=\n\nSYMBOL(prb)=zz\nSIZE(a=1\nSIZE()=1\nOFFSET(ab)=1\nSYMBOL(x)");
  EXPECT_EQ(table.symbol("prb"), std::nullopt);
  table.for_each_offset([](auto, auto, auto) { FAIL(); });
}

TEST(Vmcoreinfo, NoteLongerThanMemory) {
  FakeKernel kernel;
  kernel.put_physical(0x3ff000, std::array<std::uint32_t, 3>{11, 4096, 0});
  ASSERT_TRUE(kernel.memory().write(
      Gpa(0x3ff00c), std::as_bytes(std::span(std::string_view("VMCOREINFO\0\0OSRELEASE=", 22)))));
  EXPECT_EQ(find_vmcoreinfo(kernel.memory()), "") << "it would go on behind the last page";
}

TEST(GuestKernel, NothingIsKnown) {
  FakeKernel kernel;
  const auto opened = kernel.open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message(), HasSubstr("give --symbols its System.map or vmlinux"));
}

TEST(GuestKernel, BeforePaging) {
  FakeKernel kernel;
  const auto opened = GuestKernel::open(
      {.memory = kernel.memory(), .tables = {}, .symbols = nullptr, .offset = {}});
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message(), HasSubstr("no Linux kernel yet"));
}

TEST(GuestKernel, LayoutsFromBtfInMemory) {
  FakeKernel kernel;
  BtfMaker btf;
  btf.structure("thing", 8, {{"x", btf.integer(4), 4}});
  kernel.put_btf(btf);
  const auto opened = kernel.open();
  ASSERT_TRUE(opened);
  const auto layouts = opened->layouts(kThing);
  ASSERT_TRUE(layouts);
  EXPECT_EQ(layouts->offset("thing", "x"), 4u);
  const auto lacking = layouts->offset("thing", "y");
  ASSERT_FALSE(lacking);
  EXPECT_THAT(lacking.error().message(), HasSubstr("struct thing"));
}

TEST(GuestKernel, BtfThatIsSaidToBeHuge) {
  FakeKernel kernel;
  kernel.symbol("__start_BTF", 0);
  kernel.symbol("__stop_BTF", 0x70000000);
  const auto opened = kernel.open();
  ASSERT_TRUE(opened);
  EXPECT_FALSE(opened->layouts(kThing));
}

TEST(GuestKernel, SymbolThatTheFileLacks) {
  FakeKernel kernel;
  kernel.symbol("something", 0x1000);
  const auto opened = kernel.open();
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->symbol("something"), FakeKernel::kBase + 0x1000);
  const auto lacking = opened->symbol("modules");
  ASSERT_FALSE(lacking);
  EXPECT_THAT(lacking.error().message(), HasSubstr("no variable modules"));
}

}  // namespace
}  // namespace vmm::guest_linux

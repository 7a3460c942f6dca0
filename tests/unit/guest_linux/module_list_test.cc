#include "vmm/guest_linux/module_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kHead = 0x10000, kFirst = 0x20000, kSecond = 0x30000, kUse = 0x40000;
constexpr std::uint64_t kList = 8, kName = 24, kUsers = 160;

class ModuleListTest : public testing::Test {
 protected:
  ModuleListTest() {
    kernel_.symbol("modules", kHead);
    put_module(kFirst, "usbcore");
    put_module(kSecond, "xhci");
    link({kHead, kSecond + kList, kFirst + kList});
    link({kSecond + kUsers});
    link({kFirst + kUsers, kUse});
    kernel_.put(kUse + 16, FakeKernel::kBase + kSecond);
    kernel_.put(kFirst + 152, std::uint32_t{2});
    kernel_.put(kSecond + 152, std::uint32_t{1});
  }

  // Of Linux 6.1, and of 6.4 and later.
  void put_btf(bool parts) {
    BtfMaker btf;
    const auto word = btf.integer(8), half = btf.integer(4), letter = btf.integer(1);
    const auto list = btf.structure("list_head", 16, {{"next", word, 0}, {"prev", word, 8}});
    const auto layout = btf.structure("module_layout", 16, {{"base", word, 0}, {"size", half, 8}});
    const auto several = btf.array(layout, 3);
    btf.structure("module_use", 48, {{"source_list", list, 0}, {"source", word, 16}});
    std::vector<BtfMaker::Member> members{{"state", half, 0},
                                          {"list", list, kList},
                                          {"name", btf.array(letter, 56), kName},
                                          {"refcnt", half, 152},
                                          {"source_list", list, kUsers}};
    if (parts) {
      members.push_back({"mem", several, 96});
    } else {
      members.push_back({"core_layout", layout, 96});
      members.push_back({"init_layout", layout, 112});
    }
    btf.structure("module", 256, members);
    kernel_.put_btf(btf);
  }

  void put_module(std::uint64_t at, std::string_view name) {
    kernel_.put_text(at + kName, name);
    for (std::uint64_t part = 0; part < 3; ++part) {
      kernel_.put(at + 96 + 16 * part, 0xffffffffc0000000 + at + 0x1000 * part);
      kernel_.put(at + 104 + 16 * part, std::uint32_t{0x1000});
    }
  }

  void link(const std::vector<std::uint64_t>& nodes) {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      kernel_.put(nodes[i], FakeKernel::kBase + nodes[(i + 1) % nodes.size()]);
    }
  }

  std::string modules() {
    const auto kernel = kernel_.open();
    if (!kernel) return "error: " + kernel.error().message();
    const auto list = read_modules(*kernel);
    return list ? format_modules(*list) : "error: " + list.error().message();
  }

  FakeKernel kernel_;
};

TEST_F(ModuleListTest, OfLinux61) {
  put_btf(false);
  EXPECT_EQ(modules(),
            "TEXT                    SIZE  USES MODULE\n"
            "0xffffffffc0030000      8192     0 xhci\n"
            "0xffffffffc0020000      8192     1 usbcore, used by xhci\n");
}

TEST_F(ModuleListTest, OfLinux64) {
  put_btf(true);
  EXPECT_THAT(modules(), HasSubstr("0xffffffffc0020000     12288     1 usbcore, used by xhci\n"));
}

TEST_F(ModuleListTest, StatesOfModules) {
  put_btf(false);
  kernel_.put(kFirst, std::uint32_t{1});
  kernel_.put(kSecond, std::uint32_t{3});
  EXPECT_THAT(modules(), HasSubstr("usbcore (loading), used by xhci\n"));
  EXPECT_THAT(modules(), testing::Not(HasSubstr(" 0 xhci")));
}

TEST_F(ModuleListTest, ListsThatLeadInCirclesOrNowhere) {
  put_btf(false);
  kernel_.put(kUse, FakeKernel::kBase + kUse);
  EXPECT_THAT(modules(), HasSubstr("used by xhci, ...\n"));
  kernel_.put(kFirst + kList, FakeKernel::kBase + kSecond + kList);
  EXPECT_THAT(modules(), HasSubstr("These are not all: the list is broken: it goes in a circle"));
  kernel_.put(kFirst + kList, std::uint64_t{0x18});
  EXPECT_THAT(modules(), HasSubstr("These are not all: the list is broken: No CPU's page tables"));
}

TEST_F(ModuleListTest, KernelWithoutModules) {
  FakeKernel without;
  without.symbol("init_task", 0x1000);
  const auto kernel = without.open();
  ASSERT_TRUE(kernel);
  EXPECT_FALSE(read_modules(*kernel));
}

}  // namespace
}  // namespace vmm::guest_linux

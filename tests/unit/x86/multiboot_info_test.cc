#include "vmm/x86/multiboot_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "base/le.h"
#include "test_memory.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

std::uint32_t word(const GuestMemory& memory, std::uint64_t address) {
  return memory.read<Le32>(Gpa(address)).value();
}

std::string text(const GuestMemory& memory, std::uint64_t address) {
  std::string result;
  for (;; ++address) {
    const auto c = static_cast<char>(memory.read<std::uint8_t>(Gpa(address)).value());
    if (c == '\0') return result;
    result += c;
  }
}

class MultibootInfoTest : public testing::Test {
 protected:
  const GuestMemory memory_ = test_memory(MiB(4));
  const E820Map map_ = machine_e820(MiB(4));
  const std::vector<MultibootModule> modules_{{fixed_range(0x200000, 0x1234), "a.img one two"},
                                              {fixed_range(0x202000, 1), "b"}};
  const std::vector<std::byte> headers_ = std::vector<std::byte>(80, std::byte{0x5e});
  MultibootInfo info() const {
    MultibootInfo info;
    info.cmdline = "kernel.elf a=b";
    info.modules = modules_;
    info.e820 = map_.entries();
    info.sections = MultibootSections{2, 40, 1, headers_};
    return info;
  }
};

TEST_F(MultibootInfoTest, Version1HasMemoryStringsModulesAndMap) {
  const auto at = write_multiboot_info(memory_, info());
  ASSERT_TRUE(at) << at.error().message();
  const std::uint64_t head = at->value;
  EXPECT_EQ(word(memory_, head), 0x26dU);
  EXPECT_EQ(word(memory_, head + 4), 639U);
  EXPECT_EQ(word(memory_, head + 8), 3U * 1024);
  EXPECT_EQ(text(memory_, word(memory_, head + 16)), "kernel.elf a=b");
  EXPECT_EQ(text(memory_, word(memory_, head + 64)), "vmm");

  ASSERT_EQ(word(memory_, head + 20), 2U);
  const std::uint64_t modules = word(memory_, head + 24);
  EXPECT_EQ(word(memory_, modules), 0x200000U);
  EXPECT_EQ(word(memory_, modules + 4), 0x201234U);
  EXPECT_EQ(text(memory_, word(memory_, modules + 8)), "a.img one two");
  EXPECT_EQ(text(memory_, word(memory_, modules + 24)), "b");

  EXPECT_EQ(word(memory_, head + 28), 2U);
  EXPECT_EQ(word(memory_, head + 32), 40U);
  EXPECT_EQ(word(memory_, word(memory_, head + 36)), 0x5e5e5e5eU);
  EXPECT_EQ(word(memory_, head + 40), 1U);
}

TEST_F(MultibootInfoTest, Version1MapIsTheE820Map) {
  const std::uint64_t head = write_multiboot_info(memory_, info()).value().value;
  const std::uint64_t end = word(memory_, head + 48) + word(memory_, head + 44);
  std::vector<E820Entry> seen;
  for (std::uint64_t at = word(memory_, head + 48); at < end; at += word(memory_, at) + 4) {
    seen.push_back({fixed_range(memory_.read<Le64>(Gpa(at + 4)).value(),
                                memory_.read<Le64>(Gpa(at + 12)).value()),
                    static_cast<E820Type>(word(memory_, at + 20))});
  }
  EXPECT_THAT(seen, testing::ElementsAreArray(map_.entries()));
}

// Tags by type; each one's payload.
std::multimap<std::uint32_t, std::vector<std::byte>> tags(const GuestMemory& memory, Gpa start) {
  std::multimap<std::uint32_t, std::vector<std::byte>> result;
  const std::uint64_t end = start.value + word(memory, start.value);
  for (std::uint64_t at = start.value + 8; at < end;) {
    const std::uint32_t size = word(memory, at + 4);
    std::vector<std::byte> payload(size - 8);
    EXPECT_TRUE(memory.read(Gpa(at + 8), payload));
    result.emplace(word(memory, at), payload);
    at += (size + 7) / 8 * 8;
  }
  return result;
}

std::string chars(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(MultibootInfoTest, Version2HasOneTagForEachThing) {
  MultibootInfo all = info();
  all.rsdp = write_acpi_tables(memory_, {}).value();
  all.load_base = Gpa(0x100000);
  const auto at = write_multiboot2_info(memory_, all);
  ASSERT_TRUE(at) << at.error().message();
  const auto found = tags(memory_, *at);
  EXPECT_EQ(chars(found.find(1)->second), std::string("kernel.elf a=b\0", 15));
  EXPECT_EQ(chars(found.find(2)->second), std::string("vmm\0", 4));
  ASSERT_EQ(found.count(3), 2U);
  const auto& module = found.find(3)->second;
  EXPECT_EQ(load_le(std::span(module).first(4)), 0x200000U);
  EXPECT_EQ(load_le(std::span(module).subspan(4, 4)), 0x201234U);
  EXPECT_EQ(chars(std::span(module).subspan(8)), std::string("a.img one two\0", 14));
  EXPECT_EQ(load_le(std::span(found.find(4)->second).first(4)), 639U);
  EXPECT_EQ(found.find(6)->second.size(), 8 + 24 * map_.entries().size());
  EXPECT_EQ(found.find(9)->second.size(), 12 + headers_.size());
  EXPECT_EQ(chars(std::span(found.find(14)->second)).substr(0, 8), "RSD PTR ");
  EXPECT_EQ(found.find(14)->second.size(), 20U);
  EXPECT_EQ(found.find(15)->second.size(), 36U);
  EXPECT_EQ(load_le(std::span(found.find(21)->second)), 0x100000U);
  EXPECT_EQ(found.count(0), 1U);
  EXPECT_EQ(found.count(8), 0U);  // no framebuffer
  EXPECT_EQ(at->value % 8, 0U);
}

TEST_F(MultibootInfoTest, TooLongACommandLineIsRefusedWithTheNumbers) {
  const std::string cmdline(kCommandLine.size(), 'x');
  MultibootInfo all = info();
  all.cmdline = cmdline;
  EXPECT_FALSE(write_multiboot_info(memory_, all));
  const std::string longer(kMultibootInfo.size(), 'x');
  all.cmdline = longer;
  const auto result = write_multiboot2_info(memory_, all);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
}

TEST_F(MultibootInfoTest, LiesInTheBootAreaBesideGdtAndStack) {
  EXPECT_TRUE(kBootArea.contains(kMultibootInfo));
  EXPECT_FALSE(kMultibootInfo.overlaps(kGdtPage));
  EXPECT_FALSE(kMultibootInfo.overlaps(kBootStack));
  EXPECT_FALSE(kMultibootInfo.overlaps(kCommandLine));
}

}  // namespace
}  // namespace vmm::x86

#include "vmm/debug/register_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/debug/packet.h"

namespace vmm::debug {
namespace {

using testing::HasSubstr;
using testing::Not;

completion::XsaveLayout full_layout() {
  completion::XsaveLayout layout{};
  layout.components[2] = {576, 256, false};
  layout.components[5] = {1088, 64, false};
  layout.components[6] = {1152, 512, false};
  layout.components[7] = {1664, 1024, false};
  layout.components[9] = {2688, 8, false};
  return layout;
}

CpuState long_mode() {
  CpuState state;
  state.system.efer = x86::kEferLme | x86::kEferLma;
  state.system.cs.long_mode = true;
  state.xsave.resize(4096);
  return state;
}

std::string value(const RegisterMap& map, std::string_view name, const CpuState& state) {
  const auto number = map.find(name);
  if (!number) return "no such register";
  const auto bytes = map.read(*number, state);
  return bytes ? to_hex(*bytes) : "unavailable";
}

bool set(const RegisterMap& map, std::string_view name, std::string_view digits, CpuState& state) {
  return map.write(*map.find(name), *from_hex(digits), state);
}

TEST(RegisterMap, CoreRegistersComeInGdbsOrder) {
  const RegisterMap wide(Architecture::kX86_64, {});
  EXPECT_EQ(wide.name(0), "rax");
  EXPECT_EQ(wide.name(1), "rbx");
  EXPECT_EQ(wide.name(16), "rip");
  EXPECT_EQ(wide.name(17), "eflags");
  EXPECT_EQ(wide.name(24), "st0");
  EXPECT_EQ(wide.name(40), "xmm0");
  const RegisterMap narrow(Architecture::kI386, {});
  EXPECT_EQ(narrow.name(1), "ecx");
  EXPECT_EQ(narrow.name(8), "eip");
  EXPECT_EQ(narrow.size(0), 4U);
}

TEST(RegisterMap, DescriptionNamesTheArchitecture) {
  EXPECT_THAT(RegisterMap(Architecture::kX86_64, {}).xml(),
              HasSubstr("<architecture>i386:x86-64</architecture>"));
  EXPECT_THAT(RegisterMap(Architecture::kI8086, {}).xml(),
              HasSubstr("<architecture>i8086</architecture>"));
}

TEST(RegisterMap, OnlyTheHostsStateIsDescribed) {
  EXPECT_THAT(RegisterMap(Architecture::kX86_64, full_layout()).xml(),
              HasSubstr("org.gnu.gdb.i386.avx512"));
  EXPECT_THAT(RegisterMap(Architecture::kX86_64, {}).xml(), Not(HasSubstr("i386.avx")));
}

TEST(RegisterMap, EveryRegisterCanBeReadAndWrittenBack) {
  const RegisterMap map(Architecture::kX86_64, full_layout());
  CpuState state = long_mode();
  for (auto& msr : state.msrs) msr = 1;
  for (std::size_t i = 0; i < map.count(); ++i) {
    const auto bytes = map.read(i, state);
    ASSERT_TRUE(bytes) << map.name(i);
    EXPECT_EQ(bytes->size(), map.size(i)) << map.name(i);
    EXPECT_TRUE(map.write(i, *bytes, state)) << map.name(i);
    EXPECT_EQ(map.read(i, state), bytes) << map.name(i);
  }
}

TEST(RegisterMap, EveryRegisterKeepsWhatIsWritten) {
  const RegisterMap map(Architecture::kX86_64, full_layout());
  CpuState state = long_mode();
  for (const std::string_view name :
       {"rax", "r15", "cs", "fs_base", "cr3", "efer", "gdt_base", "idt_limit", "tr_base", "dr3",
        "dr7", "xmm5", "ymm5h", "zmm31h", "k7", "pkru", "mxcsr", "st7", "tr_attr"}) {
    const std::size_t number = *map.find(name);
    std::string bytes(map.size(number), '\x01');
    if (name == "idt_limit") bytes = std::string("\x01\x01\0\0", 4);
    ASSERT_TRUE(map.write(number, bytes, state)) << name;
    if (name == "tr_attr") bytes = std::string("\x01\x01\x01\x01", 4);
    const auto read = map.read(number, state);
    EXPECT_EQ(to_hex(*read).substr(0, 2), "01") << name;
  }
}

TEST(RegisterMap, LimitOfATableHasSixteenBits) {
  const RegisterMap map(Architecture::kX86_64, {});
  CpuState state = long_mode();
  const std::size_t number = *map.find("gdt_limit");
  EXPECT_FALSE(map.write(number, std::string_view("\0\0\1\0", 4), state));
  EXPECT_TRUE(map.write(number, std::string_view("\xff\xff\0\0", 4), state));
}

TEST(RegisterMap, WrongSizeIsRefused) {
  const RegisterMap map(Architecture::kX86_64, {});
  CpuState state = long_mode();
  EXPECT_FALSE(map.write(0, "1234", state));
}

TEST(RegisterMap, PcOfSixteenBitCodeIsLinear) {
  const RegisterMap map(Architecture::kI8086, {});
  CpuState state;
  state.system.cs.base = 0xf0000;
  state.general.rip = 0xfff0;
  EXPECT_EQ(value(map, "eip", state), "f0ff0f00");
  EXPECT_TRUE(set(map, "eip", "f1ff0f00", state));
  EXPECT_EQ(state.general.rip, 0xfff1U);
}

TEST(RegisterMap, UpperHalfSurvivesANarrowWrite) {
  const RegisterMap map(Architecture::kI386, {});
  CpuState state = long_mode();
  state.general.gpr[x86::kRax] = 0x1122334455667788;
  EXPECT_TRUE(set(map, "eax", "01000000", state));
  EXPECT_EQ(state.general.gpr[x86::kRax], 0x1122334400000001U);
}

TEST(RegisterMap, WrittenVectorIsMarkedAsInUse) {
  const RegisterMap map(Architecture::kX86_64, full_layout());
  CpuState state = long_mode();
  EXPECT_TRUE(set(map, "ymm3h", std::string(32, '1'), state));
  EXPECT_EQ(completion::xsave_field<std::uint64_t>(state.xsave, completion::kXsaveXstateBv), 4U);
}

TEST(RegisterMap, FpuTagsAreTwoBitsARegister) {
  const RegisterMap map(Architecture::kX86_64, {});
  CpuState state = long_mode();
  EXPECT_EQ(value(map, "ftag", state), "ffff0000");  // all empty
  EXPECT_TRUE(set(map, "ftag", "fc3f0000", state));
  EXPECT_EQ(value(map, "ftag", state), "fd7f0000");  // 0 and 7 hold zeroes
}

TEST(RegisterMap, MissingMsrIsUnavailable) {
  const RegisterMap map(Architecture::kX86_64, {});
  CpuState state = long_mode();
  EXPECT_EQ(value(map, "lstar", state), "unavailable");
  EXPECT_FALSE(set(map, "lstar", "0100000000000000", state));
}

}  // namespace
}  // namespace vmm::debug

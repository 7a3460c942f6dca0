#include "cli/trace_rule.h"

#include <gtest/gtest.h>

#include <vector>

namespace vmm::cli {
namespace {

std::string refusal(std::string_view text) {
  const auto rule = parse_trace_rule(text);
  return rule ? "" : rule.error().message();
}

TEST(TraceRule, NamesAKind) {
  EXPECT_EQ(parse_trace_rule("pio").value(), TraceRule{.kind = "pio"});
  EXPECT_EQ(parse_trace_rule("cpuid").value(), TraceRule{.kind = "cpuid"});
  EXPECT_NE(refusal("pioo").find("'pioo' is not a kind of exit; there are pio, mmio"),
            std::string::npos);
  EXPECT_NE(refusal("").find("is not a kind of exit"), std::string::npos);
}

TEST(TraceRule, HasARange) {
  EXPECT_EQ(parse_trace_rule("msr:0xc0000080").value(),
            (TraceRule{.kind = "msr", .first = 0xc0000080, .last = 0xc0000080}));
  EXPECT_EQ(parse_trace_rule("pio:1016-0x3ff").value(),
            (TraceRule{.kind = "pio", .first = 0x3f8, .last = 0x3ff}));
  EXPECT_NE(refusal("pio:2-1").find("ends before it begins"), std::string::npos);
  for (const char* const wrong : {"pio:", "pio:-1", "pio:1-", "pio:x", "pio:1-2-3", "pio:0x1g"}) {
    EXPECT_NE(refusal(wrong).find("is not a number"), std::string::npos) << wrong;
  }
  EXPECT_NE(refusal("mmio:0x10000000000000000").find("too large"), std::string::npos);
}

TEST(TraceRule, ChoosesLinesByKind) {
  const std::vector<TraceRule> two{{.kind = "pio"}, {.kind = "hlt"}};
  EXPECT_TRUE(wants_trace("vcpu0 mmio read gpa 0xfed00000 width 4", {}));
  EXPECT_TRUE(wants_trace("vcpu0 pio write port 0x3f8 width 1", two));
  EXPECT_TRUE(wants_trace("vcpu0 hlt", two));
  EXPECT_FALSE(wants_trace("vcpu0 mmio read gpa 0x3f8 width 4", two));
}

TEST(TraceRule, ChoosesLinesByTheirNumber) {
  const std::vector<TraceRule> rules{{.kind = "pio", .first = 0x3f8, .last = 0x3ff},
                                     {.kind = "msr", .first = 0x10, .last = 0x10},
                                     {.kind = "hlt", .first = 1, .last = 1}};
  EXPECT_TRUE(wants_trace("vcpu1 pio read port 0x3f8 width 1 count 1 value 0x0", rules));
  EXPECT_TRUE(wants_trace("vcpu1 pio read port 0x3ff width 1 count 1 value 0x0", rules));
  EXPECT_FALSE(wants_trace("vcpu1 pio read port 0x400 width 1 count 1 value 0x3f8", rules));
  EXPECT_TRUE(wants_trace("vcpu0 msr write 0x10 value 0x5 rip 0x7", rules));
  EXPECT_FALSE(wants_trace("vcpu0 msr write 0x11 value 0x10 rip 0x10", rules));
  EXPECT_FALSE(wants_trace("vcpu0 hlt", rules)) << "a line without a number";
}

}  // namespace
}  // namespace vmm::cli

#include "cli/test_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace vmm::cli {
namespace {

using std::chrono::milliseconds;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

TestOutcome failed() {
  return {.image = "a.elf",
          .message = "guest ended in a triple fault",
          .exit_status = 18,
          .duration = milliseconds(1500),
          .console = "one\r\ntwo\r\n",
          .messages = "vmm: guest ended in a triple fault\n"};
}

TEST(TestReport, TapSaysLittleOfWhatPassed) {
  EXPECT_EQ(tap_plan(3), "TAP version 13\n1..3\n");
  EXPECT_EQ(tap_result(2, {.image = "a.elf", .passed = true, .duration = milliseconds(7)}),
            "ok 2 - a.elf # time=7ms\n");
}

TEST(TestReport, TapTellsWhyAnotherFailed) {
  EXPECT_EQ(tap_result(1, failed()),
            "not ok 1 - a.elf # time=1500ms\n"
            "  ---\n"
            "  message: \"guest ended in a triple fault\"\n"
            "  exit_status: 18\n"
            "  console: |2\n"
            "    one\n"
            "    two\n"
            "  messages: |2\n"
            "    vmm: guest ended in a triple fault\n"
            "  ...\n");
}

TEST(TestReport, TapNamesAreNoDirectives) {
  EXPECT_EQ(tap_result(1, {.image = "a # SKIP\\\nok 2", .passed = true}),
            "ok 1 - a \\# SKIP\\\\ ok 2 # time=0ms\n");
}

TEST(TestReport, TapShowsTheEndOfALongConsole) {
  TestOutcome outcome = failed();
  outcome.console.clear();
  for (int line = 1; line <= 60; ++line) outcome.console += std::to_string(line) + "\n";
  const std::string text = tap_result(1, outcome);
  EXPECT_THAT(text, HasSubstr("  console: |2\n    [...]\n    11\n    12\n"));
  EXPECT_THAT(text, Not(HasSubstr("    10\n")));
  EXPECT_THAT(text, HasSubstr("    60\n  messages"));
}

// A guest cannot end the block, forge a result or drive the terminal of who reads it.
TEST(TestReport, TapKeepsWhatAGuestWritesApart) {
  TestOutcome outcome = failed();
  outcome.console = "  ...\nok 7 - forged\n\x1b[2J\xff\xc2\x9b\xc2\xa9\n";
  EXPECT_THAT(tap_result(1, outcome),
              HasSubstr("  console: |2\n"
                        "      ...\n"
                        "    ok 7 - forged\n"
                        "    \xef\xbf\xbd[2J\xef\xbf\xbd\xef\xbf\xbd\xc2\xa9\n"));
}

TEST(TestReport, JunitCountsAndTells) {
  const std::vector<TestOutcome> outcomes{
      {.image = "b.elf", .passed = true, .duration = milliseconds(250), .console = "fine\n"},
      failed()};
  const std::string text = junit_xml(outcomes);
  EXPECT_THAT(text, HasSubstr("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" "
                              "time=\"1.750\""));
  EXPECT_THAT(text, HasSubstr("<testcase classname=\"vmm\" name=\"b.elf\" time=\"0.250\">\n"
                              "      <system-out>fine\n</system-out>"));
  EXPECT_THAT(text, HasSubstr("<failure message=\"guest ended in a triple fault\">vmm: "));
  EXPECT_THAT(text, EndsWith("</testsuites>\n"));
}

TEST(TestReport, JunitIsWellFormedWhateverTheGuestWrites) {
  TestOutcome outcome = failed();
  outcome.image = "\"<x>\".elf";
  outcome.console = std::string("]]></system-out>&\0\x01\xc3", 20) +
                    "\xef\xbf\xbe";  // U+FFFE, no character of XML
  const std::string text = junit_xml({&outcome, 1});
  EXPECT_THAT(text, HasSubstr("name=\"&quot;&lt;x&gt;&quot;.elf\""));
  EXPECT_THAT(text, HasSubstr("<system-out>]]&gt;&lt;/system-out&gt;&amp;"
                              "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd</system-out>"));
}

}  // namespace
}  // namespace vmm::cli

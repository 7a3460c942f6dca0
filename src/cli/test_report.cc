#include "cli/test_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/safe_text.h"

namespace vmm::cli {
namespace {

// How much of a failed guest's console TAP shows; JUnit has it all.
constexpr std::size_t kMostLines = 50;

double seconds(std::chrono::milliseconds duration) {
  return static_cast<double>(duration.count()) / 1e3;
}

// The last lines as a YAML block scalar. An empty text has no block.
std::string yaml_block(std::string_view name, std::string_view text) {
  std::string lines = harmless_text(text);
  while (lines.ends_with('\n')) lines.pop_back();
  if (lines.empty()) return {};
  std::size_t begin = lines.size();
  for (std::size_t count = 0; count < kMostLines && begin != std::string::npos; ++count) {
    begin = begin == 0 ? std::string::npos : lines.rfind('\n', begin - 1);
  }
  std::string_view rest = lines;
  // The indentation is said, since the first line may begin with blanks.
  std::string block = fmt::format("  {}: |2\n", name);
  if (begin != std::string::npos) {
    rest.remove_prefix(begin + 1);
    block += "    [...]\n";
  }
  for (std::size_t at = 0; at <= rest.size();) {
    const std::size_t end = std::min(rest.find('\n', at), rest.size());
    block += fmt::format("    {}\n", rest.substr(at, end - at));
    at = end + 1;
  }
  return block;
}

// A name for a TAP line, where '#' begins a directive and '\' escapes.
std::string tap_name(std::string_view name) {
  std::string out;
  for (const char c : harmless_text(name)) {
    if (c == '#' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// Attributes have no line breaks: a reader would make blanks of them anyway.
std::string attribute(std::string_view text) {
  std::string out = xml_text(text);
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

}  // namespace

std::string tap_plan(std::size_t tests) { return fmt::format("TAP version 13\n1..{}\n", tests); }

std::string tap_result(std::size_t number, const TestOutcome& outcome) {
  std::string text = fmt::format("{} {} - {} # time={}ms\n", outcome.passed ? "ok" : "not ok",
                                 number, tap_name(outcome.image), outcome.duration.count());
  if (outcome.passed) return text;
  text +=
      fmt::format("  ---\n  message: {}\n", nlohmann::json(harmless_text(outcome.message)).dump());
  if (outcome.exit_status >= 0) text += fmt::format("  exit_status: {}\n", outcome.exit_status);
  text += yaml_block("console", outcome.console);
  text += yaml_block("messages", outcome.messages);
  return text + "  ...\n";
}

std::string junit_xml(std::span<const TestOutcome> outcomes) {
  std::chrono::milliseconds sum{0};
  std::size_t failures = 0;
  for (const TestOutcome& outcome : outcomes) {
    sum += outcome.duration;
    if (!outcome.passed) ++failures;
  }
  std::string text = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n"
      "  <testsuite name=\"vmm test\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"0\" "
      "time=\"{:.3f}\">\n",
      outcomes.size(), failures, seconds(sum));
  for (const TestOutcome& outcome : outcomes) {
    text += fmt::format("    <testcase classname=\"vmm\" name=\"{}\" time=\"{:.3f}\">\n",
                        attribute(outcome.image), seconds(outcome.duration));
    if (!outcome.passed) {
      text += fmt::format("      <failure message=\"{}\">{}</failure>\n",
                          attribute(outcome.message), xml_text(outcome.messages));
    }
    text += fmt::format("      <system-out>{}</system-out>\n    </testcase>\n",
                        xml_text(outcome.console));
  }
  return text + "  </testsuite>\n</testsuites>\n";
}

}  // namespace vmm::cli

#include "cli/trace_rule.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/join.h"
#include "cli/option_values.h"
#include "vmm/vcpu_exit.h"

namespace vmm::cli {
namespace {

constexpr std::string_view kCpuid = "cpuid";
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

Result<void> check_kind(std::string_view kind) {
  if (kind == kCpuid) return {};
  if (std::find(kExitNames.begin(), kExitNames.end(), kind) != kExitNames.end()) return {};
  return fail(ErrorCode::kBadConfig,
              "'{}' is not a kind of exit; there are {}, and cpuid, irq, requests and syscalls",
              kind, join(kExitNames, ", "));
}

// "0x3f8" or "0x3f8-0x3ff".
Result<void> parse_range(std::string_view text, TraceRule& rule) {
  const auto dash = text.find('-');
  rule.first = VMM_TRY(parse_number(text.substr(0, dash), kMost));
  rule.last = rule.first;
  if (dash != std::string_view::npos) {
    rule.last = VMM_TRY(parse_number(text.substr(dash + 1), kMost));
  }
  if (rule.last >= rule.first) return {};
  return fail(ErrorCode::kBadConfig, "'{}' ends before it begins: write FIRST-LAST", text);
}

// The number that a line is about is its first one; nothing when it has none.
std::optional<std::uint64_t> number_of(std::string_view line) {
  const auto at = line.find(" 0x");
  if (at == std::string_view::npos) return std::nullopt;
  line.remove_prefix(at + 3);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value, 16);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<TraceRule> parse_trace_rule(std::string_view text) {
  const auto colon = text.find(':');
  TraceRule rule{.kind = std::string(text.substr(0, colon))};
  VMM_TRY(check_kind(rule.kind));
  if (colon != std::string_view::npos) VMM_TRY(parse_range(text.substr(colon + 1), rule));
  return rule;
}

bool wants_trace(std::string_view line, std::span<const TraceRule> rules) {
  if (rules.empty()) return true;
  const auto space = line.find(' ');  // behind the CPU
  if (space == std::string_view::npos) return true;
  line.remove_prefix(space + 1);
  const std::string_view kind = line.substr(0, line.find(' '));
  const auto number = number_of(line);
  return std::any_of(rules.begin(), rules.end(), [&](const TraceRule& rule) {
    if (rule.kind != kind) return false;
    const bool all = rule.first == 0 && rule.last == kMost;
    return all || (number && *number >= rule.first && *number <= rule.last);
  });
}

}  // namespace vmm::cli

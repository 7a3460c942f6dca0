#include "cli/diff_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace vmm::cli {
namespace {

using nlohmann::json;

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kLongText = 40;

std::string shown(const json& value) {
  if (value.is_number_unsigned()) return fmt::format("{:#x}", value.get<std::uint64_t>());
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return text.size() <= kLongText ? text : fmt::format("({} characters)", text.size());
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// "machine.state.cpus[0].registers.rip" for each leaf.
void collect(const json& value, const std::string& path, std::map<std::string, json>& leaves) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, item] : value.items()) {
      collect(item, path.empty() ? key : path + "." + key, leaves);
    }
  } else if (value.is_array() && !value.empty()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      collect(value[i], fmt::format("{}[{}]", path, i), leaves);
    }
  } else {
    leaves.emplace(path, value);
  }
}

std::uint64_t pages_of(std::span<const GpaRange> ranges) {
  std::uint64_t pages = 0;
  for (const GpaRange& range : ranges) pages += range.size() / kPage;
  return pages;
}

}  // namespace

std::vector<ChangedValue> changed_values(const json& before, const json& after) {
  std::map<std::string, json> old_leaves, new_leaves;
  collect(before, "", old_leaves);
  collect(after, "", new_leaves);
  std::vector<ChangedValue> changed;
  for (const auto& [path, value] : old_leaves) {
    const auto now = new_leaves.find(path);
    if (now == new_leaves.end()) {
      changed.push_back({path, shown(value), ""});
    } else if (now->second != value) {
      changed.push_back({path, shown(value), shown(now->second)});
    }
  }
  for (const auto& [path, value] : new_leaves) {
    if (!old_leaves.contains(path)) changed.push_back({path, "", shown(value)});
  }
  std::sort(changed.begin(), changed.end(),
            [](const ChangedValue& a, const ChangedValue& b) { return a.path < b.path; });
  return changed;
}

namespace {

std::string more_text(std::size_t more, std::string_view what) {
  return more == 0 ? std::string() : fmt::format("  and {} more {} (--json has all)\n", more, what);
}

std::string symbols_text(std::span<const ChangedSymbol> symbols, std::size_t most) {
  std::string text = fmt::format("symbols: {} differ\n", symbols.size());
  const std::size_t listed = std::min(most, symbols.size());
  for (const ChangedSymbol& symbol : symbols.first(listed)) {
    text += fmt::format("  {:#018x}  {}  {} {}\n", symbol.address, symbol.name, symbol.bytes,
                        symbol.bytes == 1 ? "byte" : "bytes");
  }
  return text + more_text(symbols.size() - listed, "symbols");
}

}  // namespace

std::string diff_text(const SnapshotDifference& difference, std::size_t most_ranges) {
  std::string text;
  std::size_t width = 0;
  for (const ChangedValue& value : difference.values) width = std::max(width, value.path.size());
  for (const ChangedValue& value : difference.values) {
    text += fmt::format("{:{}}  {} -> {}\n", value.path, width,
                        value.before.empty() ? "(nothing)" : value.before,
                        value.after.empty() ? "(nothing)" : value.after);
  }
  if (!difference.memory_problem.empty()) return text + difference.memory_problem + "\n";
  text += fmt::format("memory: {} of {} pages differ\n", pages_of(difference.memory),
                      difference.memory_size / kPage);
  const std::size_t shown_ranges = std::min(most_ranges, difference.memory.size());
  for (const GpaRange& range : std::span(difference.memory).first(shown_ranges)) {
    text += fmt::format("  {:#014x}-{:#014x}  {} {}\n", range.base().value,
                        range.base().value + range.size() - 1, range.size() / kPage,
                        range.size() == kPage ? "page" : "pages");
  }
  text += more_text(difference.memory.size() - shown_ranges, "places");
  if (difference.symbols) text += symbols_text(*difference.symbols, most_ranges);
  return text;
}

std::string diff_json(const SnapshotDifference& difference) {
  json values = json::array();
  for (const ChangedValue& value : difference.values) {
    values.push_back({{"path", value.path}, {"before", value.before}, {"after", value.after}});
  }
  json ranges = json::array();
  for (const GpaRange& range : difference.memory) {
    ranges.push_back(
        {{"address", fmt::format("{:#x}", range.base().value)}, {"size", range.size()}});
  }
  json memory{{"pages", difference.memory_size / kPage},
              {"differing_pages", pages_of(difference.memory)},
              {"ranges", std::move(ranges)}};
  if (!difference.memory_problem.empty()) memory["problem"] = difference.memory_problem;
  json document{{"values", std::move(values)}, {"memory", std::move(memory)}};
  if (difference.symbols) {
    json& symbols = document["symbols"] = json::array();
    for (const ChangedSymbol& symbol : *difference.symbols) {
      symbols.push_back({{"name", symbol.name},
                         {"address", fmt::format("{:#x}", symbol.address)},
                         {"bytes", symbol.bytes}});
    }
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace vmm::cli

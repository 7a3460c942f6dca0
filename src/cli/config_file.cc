#include "cli/config_file.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "base/size.h"

namespace vmm::cli {
namespace {

using nlohmann::json;

// Far more than all options together can need.
constexpr std::uint64_t kMostBytes = MiB(1);

const OptionSpec* find_spec(std::string_view name) {
  const auto table = run_option_table();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const OptionSpec& spec) { return spec.name == name; });
  return found == table.end() ? nullptr : &*found;
}

// The text that the command line would have for a scalar; nothing for other kinds of value.
std::optional<std::string> text_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number()) return value.dump();
  return std::nullopt;
}

// What is wrong with a value, or its texts.
Result<std::vector<std::string>> texts_of(const OptionSpec& spec, const json& value) {
  if (spec.kind == OptionKind::kFlag && !value.is_boolean()) {
    return fail(ErrorCode::kBadConfig, "it is either true or false");
  }
  if (spec.kind == OptionKind::kValue && value.is_boolean()) {
    return fail(ErrorCode::kBadConfig, "it needs a value: {}", spec.metavar);
  }
  if (auto text = text_of(value)) return std::vector<std::string>{*std::move(text)};
  const bool may_be_list =
      spec.kind == OptionKind::kList || spec.kind == OptionKind::kOptionalValue;
  if (!value.is_array() || !may_be_list) {
    return fail(ErrorCode::kBadConfig, "a value of type {} does not fit", value.type_name());
  }
  std::vector<std::string> texts;
  for (const json& item : value) {
    auto text = text_of(item);
    if (!text) {
      return fail(ErrorCode::kBadConfig, "a list item of type {} does not fit", item.type_name());
    }
    texts.push_back(*std::move(text));
  }
  if (spec.kind == OptionKind::kList) return texts;
  std::string joined;
  for (const std::string& text : texts) joined += (joined.empty() ? "" : ",") + text;
  return std::vector<std::string>{joined};
}

// "line 3, column 7: syntax error ..." out of the parser's own words, whose column is wrong after a
// number at the end of a line.
std::string parse_message(const json::parse_error& error, std::string_view text) {
  const std::string_view before = text.substr(0, error.byte == 0 ? 0 : error.byte - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const auto column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
  std::string_view words = error.what();
  if (const auto start = words.find("syntax error"); start != std::string_view::npos) {
    words.remove_prefix(start);
  }
  return fmt::format("line {}, column {}: {}", line, column, words);
}

}  // namespace

Result<RawOptions> parse_config(std::string_view text, const std::string& name,
                                std::vector<std::string>& problems) {
  json document;
  std::set<std::string> seen;
  // Of two equal keys JSON keeps the last: somebody would look for the other one in vain.
  const auto note_key = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1 &&
        !seen.insert(parsed.get<std::string>()).second) {
      problems.push_back(fmt::format("{}: {}: it is there twice", name, parsed.get<std::string>()));
    }
    return true;
  };
  try {
    document = json::parse(text, note_key);
  } catch (const json::parse_error& error) {
    return fail(ErrorCode::kBadConfig, "{}: {}", name, parse_message(error, text));
  }
  if (!document.is_object()) {
    return fail(ErrorCode::kBadConfig, "{}: the file does not hold one JSON object", name);
  }
  RawOptions options;
  for (const auto& [key, value] : document.items()) {
    const OptionSpec* const spec = find_spec(key);
    if (spec == nullptr) {
      problems.push_back(fmt::format("{}: {}: there is no such option", name, key));
      continue;
    }
    auto texts = texts_of(*spec, value);
    if (texts) {
      options[key] = {*std::move(texts), fmt::format("{}: {}", name, key)};
    } else {
      problems.push_back(fmt::format("{}: {}: {}", name, key, texts.error().message()));
    }
  }
  return options;
}

Result<RawOptions> read_config_file(const std::string& path, std::vector<std::string>& problems) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return tl::unexpected<Error>(
        Error::from_errno(errno, ErrorCode::kBadConfig, fmt::format("Read {}", path)));
  }
  std::string text(kMostBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return fail(ErrorCode::kBadConfig, "Read {}: it is not a readable file", path);
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kMostBytes) {
    return fail(ErrorCode::kBadConfig, "{}: larger than {}", path, format_size(kMostBytes));
  }
  return parse_config(text, path, problems);
}

}  // namespace vmm::cli

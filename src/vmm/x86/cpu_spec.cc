#include "vmm/x86/cpu_spec.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/join.h"
#include "vmm/x86/cpu_features.h"

namespace vmm::x86 {
namespace {

constexpr std::string_view kHostModel = "host";

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Result<CpuSpec> parse_cpu_spec(std::string_view text) {
  CpuSpec spec;
  std::vector<std::string> unknown;
  const std::vector<std::string_view> parts = split(text);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    if (i == 0 && part == kHostModel) continue;
    if (part.size() < 2 || (part[0] != '+' && part[0] != '-')) {
      return fail(ErrorCode::kBadConfig,
                  "CPU \"{}\": \"{}\" is not a feature with + or - before it{}", text, part,
                  i == 0 ? ", and the only model is \"host\"" : "");
    }
    const std::string name(part.substr(1));
    std::vector<std::string>& mine = part[0] == '+' ? spec.add : spec.remove;
    const std::vector<std::string>& other = part[0] == '+' ? spec.remove : spec.add;
    if (contains(other, name)) {
      return fail(ErrorCode::kBadConfig, "CPU \"{}\": {} is both added and removed", text, name);
    }
    if (find_cpu_feature(name) == nullptr) unknown.push_back(name);
    if (!contains(mine, name)) mine.push_back(name);
  }
  if (!unknown.empty()) {
    return fail(ErrorCode::kBadConfig,
                "CPU \"{}\": unknown features: {} (names are those of /proc/cpuinfo)", text,
                join(unknown, ", "));
  }
  return spec;
}

}  // namespace vmm::x86

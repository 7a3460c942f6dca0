#include "cli/balloon_option.h"

#include <chrono>

#include "base/size.h"
#include "cli/option_values.h"

namespace vmm::cli {
namespace {

// How often the guest is asked when nobody says how often.
constexpr std::chrono::seconds kStatistics{5};
constexpr std::uint64_t kMostSeconds = 3600;

Result<void> apply(std::string_view key, bool has_value, std::string_view value,
                   VirtioBalloonConfig& balloon) {
  if (key == "size" && has_value) {
    balloon.size = VMM_TRY(parse_size(value));
  } else if (key == "deflate-on-oom" && !has_value) {
    balloon.deflate_on_oom = true;
  } else if (key == "free-page-reporting" && !has_value) {
    balloon.free_page_reporting = true;
  } else if (key == "stats") {
    balloon.statistics = kStatistics;
    if (has_value) {
      balloon.statistics = std::chrono::seconds(VMM_TRY(parse_number(value, kMostSeconds)));
    }
  } else {
    return fail(ErrorCode::kBadConfig,
                "'{}' is unknown: size=SIZE, deflate-on-oom, free-page-reporting and "
                "stats[=SECONDS] are known",
                key);
  }
  return {};
}

}  // namespace

Result<VirtioBalloonConfig> parse_balloon(std::string_view text) {
  VirtioBalloonConfig balloon;
  if (text.empty()) return balloon;
  for (const std::string_view part : split(text, ',')) {
    const auto equals = part.find('=');
    const bool has_value = equals != std::string_view::npos;
    VMM_TRY(apply(part.substr(0, equals), has_value,
                  has_value ? part.substr(equals + 1) : std::string_view(), balloon));
  }
  return balloon;
}

}  // namespace vmm::cli

// The text of --balloon, and what it means.
#pragma once

#include <string_view>

#include "base/result.h"
#include "vmm/config.h"

namespace vmm::cli {

// [size=SIZE][,deflate-on-oom][,free-page-reporting][,stats[=SECONDS]]; empty: an empty balloon.
// Errors: kBadConfig, naming what would be right.
Result<VirtioBalloonConfig> parse_balloon(std::string_view text);

}  // namespace vmm::cli

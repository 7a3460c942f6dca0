// The text of --pmem, and what it means.
#pragma once

#include <string_view>

#include "base/result.h"
#include "vmm/open_pmem.h"

namespace vmm::cli {

// file=PATH[,size=SIZE][,ro][,discard-writes]. Errors: kBadConfig, naming what would be right.
Result<PmemSpec> parse_pmem(std::string_view text);

}  // namespace vmm::cli

// Limits of a disk as text, in --disk and in `vmm ctl`.
#pragma once

#include <string_view>

#include "base/result.h"
#include "devices/block_rates.h"

namespace vmm::cli {

// Whether this is the name of a limit: bps, bps-rd, bps-wr, iops, iops-rd, iops-wr or burst.
bool is_disk_rate(std::string_view key);

// Errors: kBadConfig, saying what would be right.
Result<void> set_disk_rate(std::string_view key, std::string_view value, BlockRates& rates);

// "bps=10M,iops=100", or "none". Errors as above, also for a text without any limit.
Result<BlockRates> parse_disk_rates(std::string_view text);

}  // namespace vmm::cli

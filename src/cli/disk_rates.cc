#include "cli/disk_rates.h"

#include <algorithm>
#include <array>

#include "base/size.h"
#include "cli/option_values.h"

namespace vmm::cli {
namespace {

struct Rate {
  std::string_view key;
  std::uint64_t BlockRates::*member;
  bool size;  // of bytes, else a plain number
};
constexpr std::array kRates{Rate{"bps", &BlockRates::bytes, true},
                            Rate{"bps-rd", &BlockRates::read_bytes, true},
                            Rate{"bps-wr", &BlockRates::write_bytes, true},
                            Rate{"iops", &BlockRates::operations, false},
                            Rate{"iops-rd", &BlockRates::read_operations, false},
                            Rate{"iops-wr", &BlockRates::write_operations, false}};
constexpr std::string_view kBurst = "burst";

const Rate* find_rate(std::string_view key) {
  const auto* const found =
      std::find_if(kRates.begin(), kRates.end(), [&](const Rate& rate) { return rate.key == key; });
  return found == kRates.end() ? nullptr : found;
}

}  // namespace

bool is_disk_rate(std::string_view key) { return key == kBurst || find_rate(key) != nullptr; }

Result<void> set_disk_rate(std::string_view key, std::string_view value, BlockRates& rates) {
  if (key == kBurst) {
    const auto burst = VMM_TRY(parse_seconds(value));
    if (burst > BlockRates::kLongestBurst) {
      return fail(ErrorCode::kBadConfig, "burst={} is longer than {} seconds", value,
                  BlockRates::kLongestBurst.count());
    }
    rates.burst = burst;
    return {};
  }
  const Rate* const rate = find_rate(key);
  if (rate == nullptr) {
    return fail(ErrorCode::kBadConfig,
                "'{}' is no limit: bps, bps-rd, bps-wr, iops, iops-rd, iops-wr and burst are", key);
  }
  const std::uint64_t number =
      VMM_TRY(rate->size ? parse_size(value) : parse_number(value, BlockRates::kMostOperations));
  if (number == 0) {
    return fail(ErrorCode::kBadConfig, "{}=0 would stop the disk; without {}= there is no limit",
                key, key);
  }
  if (number > BlockRates::kMostBytes) {
    return fail(ErrorCode::kBadConfig, "{}={} is more than {} a second", key, value,
                format_size(BlockRates::kMostBytes));
  }
  rates.*rate->member = number;
  return {};
}

Result<BlockRates> parse_disk_rates(std::string_view text) {
  BlockRates rates;
  if (text == "none") return rates;
  for (const std::string_view part : split(text, ',')) {
    const auto equals = std::min(part.find('='), part.size());
    const std::string_view value = part.substr(std::min(equals + 1, part.size()));
    VMM_TRY(set_disk_rate(part.substr(0, equals), value, rates));
  }
  if (!rates.limited()) {
    return fail(ErrorCode::kBadConfig, "'{}' limits nothing; 'none' takes all limits away", text);
  }
  return rates;
}

}  // namespace vmm::cli

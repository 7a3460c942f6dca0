// The answer to `stat` as a table, for `vmm stat` and `vmm top`.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace vmm::cli {

// `before` is an older answer, `seconds` ago: then rates are shown beside the sums, and places in
// the order of their rates; nullptr: there is none. At most `most_places` addresses. Throws
// json::exception when one is no such answer.
std::string stat_text(const nlohmann::json& now, const nlohmann::json* before, double seconds,
                      std::size_t most_places);

}  // namespace vmm::cli

// The answers of the control socket that tell of exits (docs/control.md: stat, trace,
// sample).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/control_protocol.h"

namespace vmm::cli {

// Adds what `stat` tells beyond `status`.
void add_statistics(const VmStats& stats, nlohmann::json& answer);

nlohmann::json to_json(const ControlExits& exits);
nlohmann::json to_json(const ControlEvents& events);
nlohmann::json to_json(const std::vector<ControlStack>& stacks);

}  // namespace vmm::cli

// A conversation with a control socket, for the commands that have one.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

// The result of a command. Errors: kIo, with the answer's own words when it is an error; as
// ask_line().
Result<nlohmann::json> ask_control(const std::string& socket, std::string_view command,
                                   const nlohmann::json& arguments);

}  // namespace vmm::cli

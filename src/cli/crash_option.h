// --on-crash: what becomes of a guest that cannot go on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

struct CrashAction {
  bool stays = false;                    // to be looked at
  std::optional<std::string> core = {};  // it is written to this file first
  bool operator==(const CrashAction&) const = default;
};

// "exit", "stop" or "gdb" (both stay), "core" (to vmm-core.PID in the current directory) or
// "core=FILE". Errors: kBadConfig.
Result<CrashAction> parse_crash_action(std::string_view text);

}  // namespace vmm::cli

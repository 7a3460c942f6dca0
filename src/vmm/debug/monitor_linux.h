// The debugger's "monitor" commands about a Linux guest: its log, tasks and modules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/debug/monitor.h"

namespace vmm::debug {

// Each takes the words behind the command. Errors: kUnsupported, with what is missing to know the
// kernel; kBadConfig, the words.
Result<std::string> linux_log(const MonitorView& view, const std::vector<std::string_view>& words);
Result<std::string> linux_tasks(const MonitorView& view,
                                const std::vector<std::string_view>& words);
Result<std::string> linux_modules(const MonitorView& view,
                                  const std::vector<std::string_view>& words);

}  // namespace vmm::debug

#include "cli/crash_option.h"

#include <fmt/format.h>
#include <unistd.h>

namespace vmm::cli {

Result<CrashAction> parse_crash_action(std::string_view text) {
  constexpr std::string_view kCoreFile = "core=";
  if (text == "exit") return CrashAction{};
  if (text == "stop" || text == "gdb") return CrashAction{.stays = true};
  if (text == "core") return CrashAction{.core = fmt::format("vmm-core.{}", ::getpid())};
  if (text.starts_with(kCoreFile) && text.size() > kCoreFile.size()) {
    return CrashAction{.core = std::string(text.substr(kCoreFile.size()))};
  }
  return fail(ErrorCode::kBadConfig, "'{}' is none of exit, stop, gdb, core and core=FILE", text);
}

}  // namespace vmm::cli

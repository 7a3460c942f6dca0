#include "cli/crash_option.h"

#include <fmt/format.h>
#include <unistd.h>

namespace vmm::cli {

Result<CrashAction> parse_crash_action(std::string_view text) {
  constexpr std::string_view kCoreFile = "core=";
  if (text == "stop") return CrashAction{};
  if (text == "gdb") return CrashAction{.to_gdb = true};
  if (text == "core") return CrashAction{.core = fmt::format("vmm-core.{}", ::getpid())};
  if (text.starts_with(kCoreFile) && text.size() > kCoreFile.size()) {
    return CrashAction{.core = std::string(text.substr(kCoreFile.size()))};
  }
  return fail(ErrorCode::kBadConfig, "'{}' is none of stop, gdb, core and core=FILE", text);
}

}  // namespace vmm::cli

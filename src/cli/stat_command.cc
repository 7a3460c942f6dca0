#include "cli/stat_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/control_client.h"
#include "cli/exit_code.h"
#include "cli/stat_text.h"

namespace vmm::cli {
namespace {

constexpr std::size_t kMostPlaces = 20;

Result<std::string> text_of(const StatCommand& command) {
  const auto stat = VMM_TRY(ask_control(command.socket, "stat", nlohmann::json::object()));
  if (command.json) return stat.dump() + "\n";
  try {
    return stat_text(stat, nullptr, 0, kMostPlaces);
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kIo, "The answer cannot be understood: {}", error.what());
  }
}

}  // namespace

int stat_command(const StatCommand& command) {
  const auto text = text_of(command);
  if (!text) {
    std::fputs(fmt::format("vmm stat: {}\n", text.error().message()).c_str(), stderr);
    return exit_code(text.error());
  }
  std::fputs(text->c_str(), stdout);
  return kExitOk;
}

}  // namespace vmm::cli

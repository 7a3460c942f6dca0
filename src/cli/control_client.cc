#include "cli/control_client.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "vmm/control/line_client.h"

namespace vmm::cli {

using nlohmann::json;

Result<json> ask_control(const std::string& socket, std::string_view command,
                         const json& arguments) {
  constexpr std::chrono::seconds kPatience{30};
  const std::string request = json{{"id", 1}, {"command", command}, {"arguments", arguments}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
  const std::string answer = VMM_TRY(ask_line(socket, request, kPatience));
  const json document = json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (document.is_object() && document.contains("result")) return document["result"];
  if (document.is_object() && document.contains("error") && document["error"].is_object()) {
    return fail(ErrorCode::kIo, "{}", document["error"].value("message", "it was refused"));
  }
  return fail(ErrorCode::kIo, "The answer cannot be understood: {}", answer.substr(0, 200));
}

}  // namespace vmm::cli

#include "cli/console_option.h"

#include "cli/option_values.h"

namespace vmm::cli {

Result<ConsolePortSpec> parse_console(std::string_view text) {
  constexpr std::string_view kName = "name=";
  const std::vector<std::string_view> parts = split(text, ',');
  ConsolePortSpec port{.where = VMM_TRY(parse_serial(parts.front()))};
  for (const std::string_view part : std::span(parts).subspan(1)) {
    if (!part.starts_with(kName)) {
      return fail(ErrorCode::kBadConfig, "'{}' is unknown: only name=NAME may follow the place",
                  part);
    }
    port.name = part.substr(kName.size());
    if (port.name.empty()) return fail(ErrorCode::kBadConfig, "the name is empty: name=NAME");
  }
  return port;
}

}  // namespace vmm::cli

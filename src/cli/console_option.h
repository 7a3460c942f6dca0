// The text of --console, and what it means.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/console/console_backend.h"

namespace vmm::cli {

// A port of the console device and the host's side of it.
struct ConsolePortSpec {
  ConsoleSpec where = NullConsole{};
  std::string name = {};  // empty: a console

  bool on_stdio() const { return std::holds_alternative<StreamConsole>(where); }
};

// WHERE[,name=NAME], where WHERE is what parse_serial() takes, without commas. Errors: kBadConfig,
// naming what would be right.
Result<ConsolePortSpec> parse_console(std::string_view text);

}  // namespace vmm::cli

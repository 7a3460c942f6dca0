#include "cli/restore_memory_option.h"

#include <vector>

#include "cli/option_values.h"

namespace vmm::cli {

Result<RestoreMemory> parse_restore_memory(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ',');
  if (parts.front() != "mapped" && parts.front() != "userfaultfd") {
    return fail(ErrorCode::kBadConfig, "'{}' is not one of mapped, userfaultfd", parts.front());
  }
  RestoreMemory memory;
  memory.faulted = parts.front() == "userfaultfd";
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto equals = parts[i].find('=');
    const std::string_view key = parts[i].substr(0, equals);
    if (!memory.faulted || equals == std::string_view::npos ||
        (key != "record" && key != "prefetch")) {
      return fail(ErrorCode::kBadConfig,
                  "'{}' is unknown: record=FILE and prefetch=FILE are known, behind userfaultfd",
                  parts[i]);
    }
    const std::string_view file = parts[i].substr(equals + 1);
    if (file.empty()) return fail(ErrorCode::kBadConfig, "{}= needs the name of a file", key);
    (key == "record" ? memory.record : memory.prefetch) = file;
  }
  return memory;
}

}  // namespace vmm::cli

#include "cli/pmem_option.h"

#include "base/size.h"
#include "cli/option_values.h"

namespace vmm::cli {

Result<PmemSpec> parse_pmem(std::string_view text) {
  PmemSpec pmem;
  for (const std::string_view part : split(text, ',')) {
    const auto equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const bool has_value = equals != std::string_view::npos;
    const std::string_view value = has_value ? part.substr(equals + 1) : std::string_view();
    if (key == "file" && has_value) {
      pmem.file = value;
    } else if (key == "size" && has_value) {
      pmem.size = VMM_TRY(parse_size(value));
    } else if (key == "ro" && !has_value) {
      pmem.read_only = true;
    } else if (key == "discard-writes" && !has_value) {
      pmem.discard_writes = true;
    } else {
      return fail(ErrorCode::kBadConfig,
                  "'{}' is unknown: file=PATH, size=SIZE, ro and discard-writes are known", part);
    }
  }
  if (pmem.file.empty()) return fail(ErrorCode::kBadConfig, "the file is missing: file=PATH");
  if (pmem.read_only && pmem.discard_writes) {
    return fail(ErrorCode::kBadConfig,
                "ro and discard-writes exclude each other: with ro there is nothing to discard");
  }
  return pmem;
}

}  // namespace vmm::cli

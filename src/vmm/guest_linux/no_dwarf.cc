// Built where libdw's header is missing.
#include "vmm/guest_linux/dwarf.h"

namespace vmm::guest_linux {

Result<Layouts> read_dwarf(const std::string& /*path*/,
                           std::span<const std::string_view> /*wanted*/) {
  return fail(ErrorCode::kUnsupported,
              "this build does not read debug information (libdw-dev was missing)");
}

}  // namespace vmm::guest_linux

#include "cli/vsock_option.h"

#include "cli/option_values.h"

namespace vmm::cli {

Result<VsockSpec> parse_vsock(std::string_view text) {
  constexpr std::uint64_t kFirst = 3, kLast = 0xffff'fffe;
  VsockSpec vsock;
  for (const std::string_view part : split(text, ',')) {
    const auto equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    if (key == "cid" && equals != std::string_view::npos) {
      vsock.cid = VMM_TRY(parse_number(part.substr(equals + 1), kLast));
      if (vsock.cid < kFirst) {
        return fail(ErrorCode::kBadConfig,
                    "{} is no guest's address: 0 to 2 have meanings of their "
                    "own, 3 is the first",
                    vsock.cid);
      }
    } else if (key == "path" && equals != std::string_view::npos) {
      vsock.path = part.substr(equals + 1);
    } else {
      return fail(ErrorCode::kBadConfig, "'{}' is unknown: cid=N and path=FILE are known", part);
    }
  }
  if (vsock.path.empty()) return fail(ErrorCode::kBadConfig, "the socket is missing: path=FILE");
  return vsock;
}

}  // namespace vmm::cli

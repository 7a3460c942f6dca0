// The text of --vsock, and what it means.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

struct VsockSpec {
  std::uint64_t cid = 3;
  std::string path;
};

// [cid=N,]path=FILE. Errors: kBadConfig, naming what would be right.
Result<VsockSpec> parse_vsock(std::string_view text);

}  // namespace vmm::cli

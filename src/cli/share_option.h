// The text of --share, and what it means.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

struct ShareSpec {
  std::string tag;
  std::string directory;  // for a file server of ours; empty: one listens on `socket`
  std::string socket;
  bool read_only = false;
};

// DIRECTORY:TAG[,ro] | path=DIRECTORY,tag=TAG[,ro] | socket=FILE,tag=TAG. Errors: kBadConfig,
// naming what would be right.
Result<ShareSpec> parse_share(std::string_view text);

}  // namespace vmm::cli

// The host's side of a guest's vsock.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace vmm {

class VsockBackend;

// A Unix socket at `path` for programs that want to reach the guest, and those at "PATH_PORT" for
// the guest (docs/vsock.md). Errors: kBadConfig, the path is too long or taken; what it is refused
// for.
Result<std::shared_ptr<VsockBackend>> open_vsock(const std::string& path);

}  // namespace vmm

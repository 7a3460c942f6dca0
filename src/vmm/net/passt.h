// passt, started for one network: in a process of its own, found in PATH, with a connected socket.
//
// It is ready when it has read its first frame, which is of a kind that it ignores; it ends by
// itself when the socket is closed, however this process ends.
#pragma once

#include <memory>

#include "base/result.h"
#include "vmm/net/stream_backend.h"

namespace vmm {

// Errors: kUnsupported when there is no passt, naming the package; kIo with its own words when it
// ends instead of becoming ready; kTimeout.
Result<std::unique_ptr<StreamBackend>> start_passt();

}  // namespace vmm

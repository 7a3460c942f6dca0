// The other end of a LineServer: one line, and its answer.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm {

// Sends a line to who listens at `path` and waits for the answer; both without the line's end.
// Errors: kIo when nobody listens, or the conversation ends before; kTimeout; kBadConfig when there
// can be no such path.
Result<std::string> ask_line(const std::string& path, std::string_view line,
                             std::chrono::milliseconds timeout);

}  // namespace vmm

// `vmm trace`: the last exits of a running guest.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Writes them to a file or to stdout; the exit status.
int trace_command(const TraceCommand& command);

}  // namespace vmm::cli

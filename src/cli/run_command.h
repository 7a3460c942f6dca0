// `vmm run`.
#pragma once

#include "cli/run_options.h"

namespace vmm::cli {

// Runs the guest and says how it ended. Returns the exit status.
int run_command(RunRequest request);

}  // namespace vmm::cli

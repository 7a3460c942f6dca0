// `vmm diff`: what two snapshots do not have in common.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Prints it; the exit status.
int diff_command(const DiffCommand& command);

}  // namespace vmm::cli

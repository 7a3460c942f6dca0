// `vmm inspect`.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Prints what an image is. Returns the exit status: kExitBadKernel for one that cannot boot.
int inspect_command(const InspectCommand& command);

}  // namespace vmm::cli

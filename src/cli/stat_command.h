// `vmm stat`: a running guest's counters, once.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Prints them; the exit status.
int stat_command(const StatCommand& command);

}  // namespace vmm::cli

// `vmm profile`: where a running guest spends its time.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Writes folded stacks or a flame graph; the exit status.
int profile_command(const ProfileCommand& command);

}  // namespace vmm::cli

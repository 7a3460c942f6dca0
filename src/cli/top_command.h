// `vmm top`: what keeps a running guest busy, as it goes.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// On a terminal until q is typed or the guest ends; else one table. The exit status.
int top_command(const StatCommand& command);

}  // namespace vmm::cli

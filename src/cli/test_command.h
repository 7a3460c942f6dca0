// `vmm test`: images that test themselves, several at a time.
#pragma once

#include "cli/options.h"

namespace vmm::cli {

// Runs them, tells the outcome as TAP on stdout; the exit status.
int test_command(const TestCommand& command);

}  // namespace vmm::cli

// Puts the platform devices of a PC on a machine's buses.
#pragma once

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/machine.h"

namespace vmm {

Result<void> build_devices(const VmConfig& config, Machine& machine);

}  // namespace vmm

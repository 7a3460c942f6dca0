// Puts a device of the embedding program into a machine.
#pragma once

#include "base/result.h"
#include "vmm/embedder_device.h"
#include "vmm/machine.h"

namespace vmm {

// Errors: those of its maker; kBadConfig, its identifier or its addresses are taken.
Result<void> add_embedder_device(const EmbedderDevice& device, Machine& machine);

}  // namespace vmm

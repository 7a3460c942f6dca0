// Makes the virtio devices of the embedding program.
#pragma once

#include <string>

#include "base/result.h"
#include "vmm/embedder_virtio.h"
#include "vmm/machine.h"
#include "vmm/virtio_devices.h"

namespace vmm {

// Errors: those of its maker; kBadConfig, what no transport can carry, or its name is taken.
Result<VirtioParts> make_embedder_virtio(const VirtioOwnConfig& config, std::string name,
                                         Machine& machine);

}  // namespace vmm

// What the host may ask of a machine's virtio devices while its guest runs. Each call takes the
// device's lock, on the caller's thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "vmm/machine.h"
#include "vmm/vm_status.h"

namespace vmm {

// Balloon, disks, interfaces, and how often a device broke.
void add_device_status(const Machine& machine, VmStatus& status);

// Errors: kUnsupported when the machine has no balloon; kBadConfig when it is too large.
Result<void> set_balloon(const Machine& machine, std::uint64_t bytes);
// Errors: kUnsupported when the memory is fixed; kBadConfig when the size does not fit.
Result<void> set_memory(const Machine& machine, std::uint64_t bytes);
// The disk's size now. Errors: kOutOfRange when there is no such disk; kIo.
Result<std::uint64_t> refresh_disk(const Machine& machine, std::string_view name);
// Errors: kOutOfRange when there is no such interface.
Result<void> set_link(const Machine& machine, std::string_view name, bool up);

}  // namespace vmm

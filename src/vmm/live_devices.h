// What the host may ask of a machine's virtio devices while its guest runs. Each call takes the
// device's lock, on the caller's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "devices/block_rates.h"
#include "devices/console_size.h"
#include "vmm/machine.h"
#include "vmm/vm_status.h"

namespace vmm {

// Balloon, disks, interfaces, and how often a device broke.
void add_device_status(const Machine& machine, VmStatus& status);

// Errors: kUnsupported when the machine has no balloon; kBadConfig when it is too large.
Result<void> set_balloon(const Machine& machine, std::uint64_t bytes);
// The disk's size now. Errors: kOutOfRange when there is no such disk; kIo.
Result<std::uint64_t> refresh_disk(const Machine& machine, std::string_view name);
// Errors: kOutOfRange when there is no such disk; kUnsupported when it was opened without limits.
Result<void> limit_disk(const Machine& machine, std::string_view name, const BlockRates& rates);
// Errors: kOutOfRange when there is no such interface.
Result<void> set_link(const Machine& machine, std::string_view name, bool up);

// As the functions of Vm with these names. Nothing happens when there is no such port.
std::size_t push_port_input(const Machine& machine, std::size_t port,
                            std::span<const std::byte> bytes);
void port_output_ready(const Machine& machine, std::size_t port);
void set_port_size(const Machine& machine, std::size_t port, ConsoleSize size);
void set_port_open(const Machine& machine, std::size_t port, bool open);

}  // namespace vmm

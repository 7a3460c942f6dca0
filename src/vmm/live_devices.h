// What the host may ask of a machine's virtio devices while its guest runs, and which of them there
// are. Each call takes the roster's lock and the device's, on the caller's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/block_rates.h"
#include "devices/console_size.h"
#include "vmm/config.h"
#include "vmm/machine.h"
#include "vmm/unplug.h"
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
// Plugs a disk or a network interface in; its name. Errors: kUnsupported when the machine's
// transport is not PCI; kBadConfig for a name or an address that is taken, and whatever validate()
// finds; kResource when no slot is free.
Result<std::string> add_device(Machine& machine, VirtioConfig config);
// Takes one out: what is ready when it has gone. Errors in there: kUnsupported as above;
// kOutOfRange when there is no such device; those of HotPlug::unplug().
std::future<Result<void>> remove_disk(Machine& machine, std::string_view name, const Unplug& how);
std::future<Result<void>> remove_net(Machine& machine, std::string_view name, const Unplug& how);

}  // namespace vmm

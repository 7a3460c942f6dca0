// A list of operations on all devices at once, read from bytes: what libFuzzer makes up and what
// the unit tests replay.
#pragma once

#include <cstdint>
#include <span>

namespace vmm::test {

// Builds the devices on a port bus and an MMIO bus, does what `program` says, and checks after each
// step what must hold whatever a guest does. Nothing when all held, else which promise was broken.
const char* run_device_operations(std::span<const std::uint8_t> program);

}  // namespace vmm::test

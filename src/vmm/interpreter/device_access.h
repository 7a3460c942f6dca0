// An access to a device, which leaves the guest as an exit without KVM.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmm/vcpu_exit.h"

namespace vmm::interpreter {

struct DeviceAccess {
  enum class To : std::uint8_t { kPort, kMemory, kMsr };
  To to = To::kPort;
  bool is_write = false;
  std::uint8_t size = 0;      // bytes: 1, 2, 4 or 8
  std::uint64_t address = 0;  // port, GPA or MSR
  // What is written; of a read, once it has been answered, what was read. Little-endian.
  std::array<std::byte, 8> data{};
};

// The exit that KVM would return with. It points into `access`, which outlives it.
VcpuExit as_exit(DeviceAccess& access) noexcept;

}  // namespace vmm::interpreter

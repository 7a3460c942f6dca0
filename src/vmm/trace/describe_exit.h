// From what KVM_RUN came back with to what is written down of it.
#pragma once

#include <optional>

#include "vmm/exit_record.h"
#include "vmm/vcpu_exit.h"

namespace vmm {

// All but number and times.
ExitRecord describe_exit(const VcpuExit& exit, std::uint64_t rip) noexcept;

// What an exit that has been handled read: nothing when it was no read.
std::optional<std::uint64_t> value_read(const VcpuExit& exit) noexcept;

}  // namespace vmm

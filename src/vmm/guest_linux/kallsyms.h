// Names that a Linux kernel has of its own addresses (CONFIG_KALLSYMS), from its memory: for a
// guest of which nobody has a System.map. VMCOREINFO of Linux 6.0 and later says where the tables
// are.
//
// Threats: the tables are the guest's: read within bounds, and looked through once.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/guest_linux/kernel_memory.h"
#include "vmm/guest_linux/vmcoreinfo_table.h"

namespace vmm::guest_linux {

// The addresses of those names that the kernel has; the first of several alike. A kernel without
// CONFIG_KALLSYMS_ALL has functions only. Errors: kUnsupported, the kernel does not say where its
// tables are; kOutOfRange, kBadState, they are not there.
Result<std::map<std::string, std::uint64_t, std::less<>>> find_kallsyms(
    const KernelMemory& memory, const VmcoreinfoTable& table,
    std::span<const std::string_view> wanted);

}  // namespace vmm::guest_linux

// What a Linux kernel says of itself for those who read its memory: offsets, sizes, symbols, how
// far KASLR moved it (Documentation/admin-guide/kdump/vmcoreinfo.rst).
//
// A kernel with CONFIG_CRASH_CORE keeps it as an ELF note in pages of its own, so that it is found
// without the guest's help.
#pragma once

#include <cstddef>
#include <span>

namespace vmm {

// The kernel's own bound (VMCOREINFO_BYTES).
inline constexpr std::size_t kMostVmcoreinfo = 4096;

// The text, when a page begins with such a note that is whole within `page`, which may be longer
// than a page; empty when it does not.
std::span<const std::byte> vmcoreinfo_in(std::span<const std::byte> page) noexcept;

}  // namespace vmm

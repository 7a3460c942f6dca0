// Layouts of structures from the debug information of a vmlinux, by libdw (elfutils), which is
// loaded when it is asked for.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/guest_linux/layouts.h"

namespace vmm::guest_linux {

// The structures of these names that the file has, with members as Layouts names them. Errors:
// kUnsupported, there is no debug information in the file, or no libdw on this host or in this
// build; kIo.
Result<Layouts> read_dwarf(const std::string& path, std::span<const std::string_view> wanted);

}  // namespace vmm::guest_linux

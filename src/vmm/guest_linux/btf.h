// Layouts of structures from BTF, the type information that a kernel with CONFIG_DEBUG_INFO_BTF has
// in its own memory (Documentation/bpf/btf.rst).
//
// Threats: the bytes are the guest's. Every offset is checked, chains and nesting are bounded, and
// what is stored is what was asked for.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"
#include "vmm/guest_linux/layouts.h"

namespace vmm::guest_linux {

// As much as a kernel's may be; a distribution's have 5 to 10 MiB.
inline constexpr std::size_t kMostBtf = std::size_t{64} << 20;

// The structures of these names that it has, with members as Layouts names them. Errors: kBadState,
// this is no BTF.
Result<Layouts> read_btf(std::span<const std::byte> btf, std::span<const std::string_view> wanted);

}  // namespace vmm::guest_linux

// Linux's own relocation table, which lies behind the ELF in a relocatable kernel's payload.
//
// Source: Linux, arch/x86/tools/relocs.c (what is written) and arch/x86/boot/compressed/misc.c,
// handle_relocations() (how it is read).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/loader/elf.h"

namespace vmm::loader {

// Lists of 32-bit words, each a virtual address whose upper half is its sign. Borrows the bytes.
//
// Layout: a zero, the 64-bit list, a zero, the inverse list (absent from Linux 6.15 on, with its
// zero), a zero, the 32-bit list, and there the file ends.
struct RelocationTable {
  std::span<const std::byte> add64;       // 64-bit words to which the slide is added
  std::span<const std::byte> subtract32;  // 32-bit words from which it is subtracted
  std::span<const std::byte> add32;       // 32-bit words to which it is added

  std::uint64_t entries() const noexcept {
    return (add64.size() + subtract32.size() + add32.size()) / 4;
  }
};

// `tail` is what follows the ELF file. Nothing when there is nothing. Errors: kBadKernel when it is
// no table of the form above.
Result<std::optional<RelocationTable>> parse_relocations(std::span<const std::byte> tail);

// Changes each word that the table names for a kernel whose segments were loaded `slide` bytes
// above their linked addresses, in physical and in virtual memory alike. Errors: kBadKernel for the
// first address that does not lie in the loaded bytes of a segment.
Result<void> apply_relocations(const RelocationTable& table, const ElfHeaders& elf,
                               std::uint64_t slide, const GuestMemory& memory);

}  // namespace vmm::loader

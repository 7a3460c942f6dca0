// The section headers of an ELF kernel, for kernels that read their own symbols.
//
// Documents: System V ABI, "Sections"; Multiboot Specification 0.6.96, 3.3, "syms": sections that
// no segment loads are put somewhere, and their headers say where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/address.h"
#include "memory/guest_memory.h"

namespace vmm::loader {

struct ElfSections {
  std::uint32_t count = 0;
  std::uint32_t entry_size = 0;    // bytes of one header: 40 or 64
  std::uint32_t string_index = 0;  // of the section with the names
  std::vector<std::byte> headers;  // count * entry_size bytes, with the addresses of what was put
  GpaRange memory;                 // where sections were put; may be empty
};

// Puts the sections of the ELF `file` that are not part of its image at the start of `room`.
// Nothing when it has no section headers, or they make no sense, or there is no room: nobody needs
// them.
std::optional<ElfSections> load_elf_sections(std::span<const std::byte> file,
                                             const GuestMemory& memory, const GpaRange& room);

}  // namespace vmm::loader

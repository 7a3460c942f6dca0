// What a Multiboot kernel is told at its entry: the boot information of both versions.
//
// Documents: Multiboot Specification 0.6.96, 3.3; Multiboot2 Specification 2.0, 3.6. Told: memory,
// command line, modules, ELF sections, memory map, the loader's name, and in version 2 the ACPI
// RSDP. Not told, since there is none: boot device, drives, APM, VBE, framebuffer, EFI.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/e820.h"

namespace vmm::x86 {

// What EAX holds at the entry.
inline constexpr std::uint32_t kMultibootMagic = 0x2bad'b002;
inline constexpr std::uint32_t kMultiboot2Magic = 0x36d7'6289;

struct MultibootModule {
  GpaRange range;    // below 4 GiB
  std::string text;  // its name and arguments
};

// Section headers of the kernel's ELF; borrowed.
struct MultibootSections {
  std::uint32_t count = 0;
  std::uint32_t entry_size = 0;    // bytes of one
  std::uint32_t string_index = 0;  // of the section with the names
  std::span<const std::byte> headers;
};

struct MultibootInfo {
  std::string_view cmdline = {};  // begins with the kernel's name; no zero byte in it
  std::span<const MultibootModule> modules = {};
  std::span<const E820Entry> e820 = {};
  std::optional<MultibootSections> sections = {};
  std::optional<Gpa> rsdp = {};       // of the ACPI tables (version 2)
  std::optional<Gpa> load_base = {};  // of an image that could have been moved (version 2)
};

// Writes the information of version 1 to kMultibootInfo and its strings to kCommandLine; its
// address, for EBX. Errors: kOutOfRange naming the numbers when it does not fit there.
Result<Gpa> write_multiboot_info(const GuestMemory& memory, const MultibootInfo& info);

// The same of version 2, all of it in kMultibootInfo.
Result<Gpa> write_multiboot2_info(const GuestMemory& memory, const MultibootInfo& info);

}  // namespace vmm::x86

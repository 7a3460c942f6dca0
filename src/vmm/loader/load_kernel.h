// Puts a kernel image into guest memory and says how it is entered.
//
// A loader returns facts. It writes no registers, no zero page and no command line: vmm/x86 does,
// from these facts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/size.h"
#include "memory/guest_memory.h"
#include "vmm/config.h"
#include "vmm/loader/bounds.h"
#include "vmm/loader/elf_sections.h"
#include "vmm/loader/entry.h"
#include "vmm/loader/kaslr.h"
#include "vmm/loader/kernel_image.h"

namespace vmm::loader {

struct LoadOptions {
  BootProtocol protocol = BootProtocol::kAuto;
  std::optional<Kaslr> kaslr;  // nothing: the kernel sits at its linked address
  LoadBounds bounds{.lowest = Gpa(MiB(1)), .highest = Gpa(GiB(4))};
  bool memory_is_zero = false;  // RAM is known to be all zeroes: .bss need not be cleared
};

struct LoadedKernel {
  EntryKind entry_kind = EntryKind::kLinux64;
  Gpa entry;
  // All that the kernel needs before it knows its memory map, .bss and room to unpack itself
  // included: nothing else may be put there.
  GpaRange occupied;
  // From 0x1f1 on, for the zero page; empty for an image that has none (an ELF file).
  std::vector<std::byte> setup_header;
  std::uint64_t initrd_addr_max = 0x7fffffff;  // highest address of an initrd's last byte
  std::uint32_t cmdline_size = 2047;           // bytes without the terminating zero
  bool kaslr = false;                          // its address was chosen at random
  std::uint64_t kaslr_slide = 0;               // bytes from the linked to the chosen address
  bool linux = false;                          // a Linux kernel, as far as can be seen
  std::optional<ElfSections> sections;         // of a Multiboot image
  bool relocatable = false;                    // a Multiboot image that could have been moved
  std::vector<std::string> notes;              // what was done and why, one line each
};

// Errors: kBadKernel naming file, field and value; kBadConfig when the image cannot do what was
// asked for. Guest memory may have been written then, within the bounds and RAM.
Result<LoadedKernel> load_kernel(const KernelImage& image, const GuestMemory& memory,
                                 const LoadOptions& options);

}  // namespace vmm::loader

// Puts a Multiboot image into guest memory.
#pragma once

#include "vmm/loader/load_kernel.h"
#include "vmm/loader/multiboot.h"

namespace vmm::loader {

// The version by which `protocol` boots the image; nothing when it is not Multiboot at all.
std::optional<MultibootVersion> multiboot_version(const KernelImage& image, BootProtocol protocol);

// An image's header together with what its ELF adds.
struct MultibootEntry {
  MultibootHeader header;
  Gpa address;  // of the first instruction: within the image
};

// Errors: kBadKernel naming the file.
Result<MultibootEntry> multiboot_entry(const KernelImage& image, MultibootVersion version);

// As load_kernel(): segments or the parts that the header names, and the ELF's other sections
// behind them. Multiboot images have no KASLR.
Result<LoadedKernel> load_multiboot(const KernelImage& image, const GuestMemory& memory,
                                    const LoadOptions& options, MultibootVersion version);

}  // namespace vmm::loader

// How an image is entered, decided from its headers and its ELF alone.
#pragma once

#include "base/result.h"
#include "memory/address.h"
#include "vmm/config.h"
#include "vmm/loader/kernel_image.h"

namespace vmm::loader {

// What state a kernel expects at its entry.
enum class EntryKind : std::uint8_t {
  kLinux64,    // boot.rst, "64-bit Boot Protocol": long mode, identity map, RSI = zero page
  kLinux32,    // boot.rst, "32-bit Boot Protocol": flat protected mode, paging off, ESI = zero page
  kPvh,        // Xen's docs/misc/pvh.pandoc: flat protected mode, paging off, EBX = hvm_start_info
  kMultiboot,  // version 1: flat protected mode, paging off, EAX = magic, EBX = information
  kMultiboot2,  // the same with another magic and another structure
};

struct Entry {
  EntryKind kind = EntryKind::kLinux64;
  Gpa address;  // with the kernel at its linked (kBzimage: preferred) address
};

// True for what kAuto leaves to unpack itself: a bzImage whose payload cannot be unpacked here.
bool enters_itself(const KernelImage& image);

// The entry of an unpacked kernel. kAuto takes PVH only for what does not look like Linux. Errors:
// kBadKernel naming the image.
Result<Entry> elf_entry(const KernelImage& image, const ElfFacts& facts, BootProtocol protocol);

// Where a bzImage's own code is put, and the memory that it needs to unpack itself
// (boot.rst, "Details of Header Fields": pref_address, init_size, kernel_alignment).
struct OwnCode {
  GpaRange code;
  GpaRange occupied;
  Entry entry;
};

// Errors: kBadKernel naming image, field and value, also for what is no bzImage.
Result<OwnCode> own_code(const KernelImage& image);

// Whether and how `protocol` can enter the image whose payload was examined with the result
// `facts`.
Result<Entry> find_entry(const KernelImage& image, const Result<ElfFacts>& facts,
                         BootProtocol protocol);

}  // namespace vmm::loader

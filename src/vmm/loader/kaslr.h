// Kernel address space layout randomisation, done by the loader.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "memory/address.h"
#include "vmm/loader/elf.h"

namespace vmm::loader {

// Lets the loader choose the kernel's address.
struct Kaslr {
  std::function<std::uint64_t()> random;  // 64 uniformly distributed bits
  std::vector<GpaRange> usable;           // RAM that the kernel may occupy
};

// Where a kernel may go: every multiple of `alignment` above its linked address at which it lies in
// usable RAM, in [lowest, highest), and inside the 1 GiB of virtual addresses that Linux maps its
// image into. One of them, each as likely, as the distance from the linked address. Errors:
// kBadKernel when there is none, or the alignment is no power of two.
Result<std::uint64_t> choose_slide(const Kaslr& kaslr, const ElfHeaders& elf,
                                   std::uint64_t alignment, Gpa lowest, Gpa highest);

}  // namespace vmm::loader

// A guest as an ELF core file (docs/observing.md):
//
//   ELF header, program headers
//   notes        CPUs' registers, VMCOREINFO
//   memory       page by page, holes where there are only zeroes
//
// Program headers: PT_NOTE; a PT_LOAD for each region of RAM, with its guest-physical address as
// both addresses (as QEMU's dump-guest-memory writes it); then one for each range that the kernel
// of the first CPU has mapped, which leads to the same bytes by its virtual address.
//
// Threats: page tables and the VMCOREINFO note are the guest's: the first are read up to a limit,
// the second is copied as text within its bounds.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "vmm/core/frozen_core.h"
#include "vmm/machine.h"
#include "vmm/snapshot/cpu_access.h"
#include "vmm/snapshot/ram_image.h"

namespace vmm {

struct CoreOptions {
  const RamImage* base = nullptr;  // what memory was mapped from
  std::function<bool()> cancelled = {};
  std::function<void()> memory_written = {};  // the guest may go on
};

// The CPUs are paused until this returns. `base`: what memory was mapped from, or null. Errors:
// kUnsupported, saying why this guest's memory cannot be copied on write (frozen_memory.h);
// kResource.
Result<std::unique_ptr<FrozenCore>> freeze_core(Machine& machine, const CpuAccess& cpus,
                                                std::shared_ptr<const RamImage> base);

// The CPUs are paused. Errors: kIo, kResource, kCancelled; then there is no file, or the former
// one.
Result<void> write_core(Machine& machine, const CpuAccess& cpus, const std::string& path,
                        const CoreOptions& options);

}  // namespace vmm

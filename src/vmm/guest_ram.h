// Lays out guest memory: maps it on the host, as the machine's memory map wants it. Above RAM come
// the files of persistent memory, and above these what can be plugged.
#pragma once

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/config.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm {

// Maps the regions. Refuses more than the host could ever give, with both numbers. Errors:
// kResource, kBadConfig.
Result<GuestMemory> map_guest_memory(const VmConfig& config);

// Populates all RAM on several threads, telling `config.on_progress`; nothing to do unless
// config.preallocate.
Result<void> preallocate_guest_ram(const MemoryConfig& config, const GuestMemory& memory);

// One slot for each region, numbered from 0.
Result<void> set_ram_slots(const GuestMemory& memory, const kvm::VmFd& vm);

}  // namespace vmm

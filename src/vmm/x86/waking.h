// Where a guest goes on that wakes up from S3: the firmware's part of it.
//
// The guest has left an address in the FACS (ACPI Specification 6.5, 5.2.10). X_Firmware_Waking_
// Vector counts where it is not 0, and is entered in flat 32-bit protected mode without paging;
// else Firmware_Waking_Vector is, in real mode. Interrupts are off. The 64-bit environment that
// firmware may offer besides is not: the FACS says so.
#pragma once

#include <optional>

#include "memory/guest_memory.h"
#include "vmm/x86/entry_state.h"

namespace vmm::x86 {

// The state of the first CPU at the waking vector. Nothing when there is no FACS any more, or no
// address in it that its environment reaches: firmware would then start the machine anew.
std::optional<EntryState> waking_entry(const GuestMemory& memory);

}  // namespace vmm::x86

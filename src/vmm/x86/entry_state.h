// The state of the first CPU at the first instruction of a guest, for each way to enter one.
//
// Each function writes what that state refers to (GDT, TSS, page tables) to the boot area of
// layout.h and returns the registers to set. Interrupts are off, IDT is empty, APIC base is at its
// power-on value with the BSP and enable bits. The other CPUs stay as they are after a reset: they
// wait for INIT and SIPI.
#pragma once

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// What the first CPU is set to; every field counts.
struct EntryState {
  Registers registers;
  SystemRegisters system;
};

// IA32_APIC_BASE after a reset of the first CPU (SDM volume 3, 11.4.4).
inline constexpr std::uint64_t kApicBaseReset = 0xfee0'0900;

// Linux's 64-bit entry: long mode, identity map of 4 GiB, CS 0x10, data segments 0x18, RSI holds
// the zero page ("The Linux/x86 Boot Protocol", 64-bit boot protocol). Errors of all functions
// here: kOutOfRange when there is no RAM in the boot area.
Result<EntryState> enter_linux64(const GuestMemory& memory, Gpa entry, Gpa zero_page);

// Linux's 32-bit entry: protected mode without paging, CS 0x10, data segments 0x18, ESI holds the
// zero page, EBP, EDI and EBX are zero. Errors besides: kBadConfig when an address is above 4 GiB.
Result<EntryState> enter_linux32(const GuestMemory& memory, Gpa entry, Gpa zero_page);

// The PVH entry ("x86/HVM direct boot ABI" of Xen): 32-bit flat protected mode without paging, EBX
// holds the start info. Errors besides: kBadConfig when an address is above 4 GiB.
Result<EntryState> enter_pvh(const GuestMemory& memory, Gpa entry, Gpa start_info);

// A Multiboot entry ("I386 machine state" of both versions' specifications): 32-bit flat protected
// mode without paging, EAX holds `magic`, EBX the information. Errors as for PVH.
Result<EntryState> enter_multiboot(const GuestMemory& memory, Gpa entry, std::uint32_t magic,
                                   Gpa info);

// A flat image in real mode. Below 64 KiB, CS = 0 and IP = address; above, CS = address / 16 and
// IP = 0. The stack is below the image. Errors: kBadConfig when the address is not below 1 MiB or
// CS:IP cannot hold it.
Result<EntryState> enter_flat_real(Gpa address);

// A flat image in 32-bit protected mode without paging, entered at its first byte: CS 0x08, data
// segments 0x10, TSS 0x18; the table has 0x28 (data) and 0x30 (code) for CPL 3 too. The stack
// pointer is the image's address (a multiple of 16), or the end of kBootStack when there is no page
// below the image. Errors besides: kBadConfig when the image starts above 4 GiB or lies where these
// tables go (kBootArea).
Result<EntryState> enter_flat_protected(const GuestMemory& memory, const GpaRange& image);

// The same in long mode, under an identity map of 4 GiB that CPL 3 may use; SSE is on.
Result<EntryState> enter_flat_long(const GuestMemory& memory, const GpaRange& image);

// A CPU after INIT (SDM volume 3, table 10-1), about to fetch at FFFF_FFF0: the caches' bits of CR0
// and the APIC base are those of `before`.
EntryState after_init(const SystemRegisters& before);

// Where a start-up IPI with this vector sends a CPU that is after INIT: real mode, CS:IP at the
// vector's 4 KiB page (SDM volume 3, 9.4.3).
void start_up_at(EntryState& state, std::uint8_t vector);

}  // namespace vmm::x86

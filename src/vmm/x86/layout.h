// The guest-physical memory map of the PC that a guest finds: every fixed address in one place.
//
//   0x00000000  IVT and BIOS data area; pages 0 to 2 and 0x8000..0xdfff are left to guests (the
//               warm reset vector at 0x467, trampolines for other CPUs)
//   0x00080000  boot data: zero page, GDT, PVH start info, setup_data, page tables, stack; or GDT,
//               Multiboot information, stack
//   0x00090000  command line
//   0x0009fc00  extended BIOS data area                                   reserved
//   0x000a0000  VGA window and option ROMs: RAM is there, but no map names it
//   0x000e0000  ACPI tables                                               ACPI data, NVS
//   0x000f0000  MP table, SMBIOS tables, where a BIOS would be            reserved
//   0x00100000  RAM up to at most 3 GiB
//   0xc0000000  hole for devices: PCI BARs, PCI configuration, I/O APIC, local APIC, KVM's own
//               pages
//   0x100000000 the rest of RAM; above it persistent memory and what can be plugged, which no map
//               names: drivers learn of them from their devices
#pragma once

#include <cstdint>
#include <vector>

#include "base/size.h"
#include "memory/address.h"

namespace vmm::x86 {

// A range of constants; the arguments are literals below and cannot wrap.
constexpr GpaRange fixed_range(std::uint64_t base, std::uint64_t size) noexcept {
  return GpaRange::create(Gpa(base), size).value_or(GpaRange());
}

inline constexpr std::uint64_t kPageSize = KiB(4);

// --- RAM -----------------------------------------------------------------------------------------

// Devices live between the end of low RAM and 4 GiB, so that 32-bit BARs and the APICs have room.
inline constexpr GpaRange kDeviceHole = fixed_range(0xc000'0000, GiB(1));
inline constexpr Gpa kHighRamBase{GiB(4)};
// What 46 bits of physical address reach; more RAM than that has no place.
inline constexpr std::uint64_t kMaxRamBytes = (std::uint64_t{1} << 46) - GiB(1);

// Nothing of the guest's memory is beyond it.
inline constexpr Gpa kEndOfMemory{std::uint64_t{1} << 46};
// What is added above RAM starts at multiples of these: what Linux adds and removes at once (on
// guests with much memory), and the unit of its memory map.
inline constexpr std::uint64_t kMemoryBlock = GiB(2);
inline constexpr std::uint64_t kMemorySection = MiB(128);

// Where `size` bytes of RAM go: below the hole, and what does not fit there from 4 GiB on. Sorted;
// empty when size is 0 or above kMaxRamBytes.
std::vector<GpaRange> ram_ranges(std::uint64_t size);

// --- The first mebibyte --------------------------------------------------------------------------

// BIOS data area (IBM PC AT technical reference): words that Linux reads to find the EBDA.
inline constexpr Gpa kBdaEbdaSegment{0x40e};                 // real-mode segment of the EBDA
inline constexpr Gpa kBdaBaseMemoryKib{0x413};               // KiB of memory below the EBDA
inline constexpr GpaRange kBdaArea = fixed_range(0, 0x500);  // and the vectors before it

// Everything that the boot code writes below 640 KiB lies in here; a flat image must keep out of
// it. Behind it, up to the EBDA, a kernel may put trampolines while it still needs the rest.
inline constexpr GpaRange kBootArea = fixed_range(0x8'0000, 0x1'8000);

inline constexpr GpaRange kZeroPage = fixed_range(0x8'0000, kPageSize);
inline constexpr GpaRange kGdtPage = fixed_range(0x8'1000, kPageSize);  // GDT and TSS
inline constexpr GpaRange kPvhInfo = fixed_range(0x8'2000, kPageSize);
inline constexpr GpaRange kSetupData = fixed_range(0x8'3000, kPageSize);
inline constexpr GpaRange kBootPageTables = fixed_range(0x8'4000, 8 * kPageSize);
// In place of the three before it, for kernels that get none of those.
inline constexpr GpaRange kMultibootInfo = fixed_range(0x8'2000, 10 * kPageSize);
inline constexpr GpaRange kBootStack = fixed_range(0x8'c000, 4 * kPageSize);
inline constexpr GpaRange kCommandLine = fixed_range(0x9'0000, KiB(32));

// From the EBDA on, the first mebibyte is the machine's.
inline constexpr GpaRange kUpperArea = fixed_range(0x9'fc00, 0x6'0400);
inline constexpr GpaRange kEbda = fixed_range(0x9'fc00, KiB(1));
// Conventional memory ends where the EBDA starts; the video window starts at 640 KiB.
inline constexpr GpaRange kLowRam = fixed_range(0, 0x9'fc00);
// The RSDP must be on a 16-byte boundary in 0xe0000..0xfffff (ACPI 6.5, 5.2.5.1).
inline constexpr GpaRange kAcpiTables = fixed_range(0xe'0000, 15 * kPageSize);
inline constexpr GpaRange kAcpiNvs = fixed_range(0xe'f000, kPageSize);  // FACS
// One of the places where the MP floating pointer may be (MP specification 1.4, chapter 4).
inline constexpr GpaRange kMpTable = fixed_range(0xf'0000, KiB(32));
// Real-mode handlers, where a Multiboot kernel may look for a BIOS.
inline constexpr GpaRange kBiosStub = fixed_range(0xf'f000, KiB(1));
inline constexpr GpaRange kSmbios = fixed_range(0xf'8000, 7 * kPageSize);
inline constexpr GpaRange kBiosArea = fixed_range(0xf'0000, KiB(64));
inline constexpr Gpa kExtendedRamBase{MiB(1)};

// Other CPUs are started with code in this range (a SIPI vector names a page below 1 MiB).
inline constexpr GpaRange kTrampolineArea = fixed_range(0x8000, 0x6000);

// --- The device hole -----------------------------------------------------------------------------

// Where the BARs of PCI functions go, and all configuration space of bus 0.
inline constexpr GpaRange kPciMemory = fixed_range(0xc000'0000, 0x2000'0000);
inline constexpr GpaRange kPciConfig = fixed_range(0xe000'0000, MiB(1));
// Pages of virtio-mmio devices.
inline constexpr GpaRange kVirtioMmio = fixed_range(0xe800'0000, 32 * kPageSize);
// Power-on addresses (82093AA datasheet; SDM volume 3, 11.4.1).
inline constexpr GpaRange kIoApic = fixed_range(0xfec0'0000, kPageSize);
inline constexpr GpaRange kLocalApic = fixed_range(0xfee0'0000, kPageSize);
// One page of identity page table and three of TSS that KVM needs on Intel CPUs while a guest is in
// real mode (KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR): below 4 GiB, nobody else's.
inline constexpr GpaRange kKvmIdentityMap = fixed_range(0xfffb'c000, kPageSize);
inline constexpr GpaRange kKvmTss = fixed_range(0xfffb'd000, 3 * kPageSize);

}  // namespace vmm::x86

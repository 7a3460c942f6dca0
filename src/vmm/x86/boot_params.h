// What a Linux kernel is told when it is entered: the zero page, the command line and setup_data.
//
// Document: "The Linux/x86 Boot Protocol" (version 2.15) and "Zero Page" of the kernel's own
// documentation. Not filled: screen_info (there is no VGA), EDD, EFI, APM.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/e820.h"

namespace vmm::x86 {

// Offsets in the zero page; from 0x1f1 on they are the setup header's, and so offsets in a bzImage
// file too.
namespace zero_page {
inline constexpr std::size_t kAcpiRsdpAddr = 0x070;     // u64
inline constexpr std::size_t kExtRamdiskImage = 0x0c0;  // u32: bits 63:32
inline constexpr std::size_t kExtRamdiskSize = 0x0c4;   // u32
inline constexpr std::size_t kExtCmdLinePtr = 0x0c8;    // u32
inline constexpr std::size_t kAltMemK = 0x1e0;          // u32: KiB from 1 MiB on
inline constexpr std::size_t kE820Entries = 0x1e8;      // u8
inline constexpr std::size_t kSentinel = 0x1ef;         // u8: zero says that all of this is valid
inline constexpr std::size_t kSetupHeader = 0x1f1;
inline constexpr std::size_t kVidMode = 0x1fa;           // u16
inline constexpr std::size_t kBootFlag = 0x1fe;          // u16: 0xaa55
inline constexpr std::size_t kJump = 0x200;              // u16: its second byte ends the header
inline constexpr std::size_t kHeader = 0x202;            // u32: "HdrS"
inline constexpr std::size_t kVersion = 0x206;           // u16
inline constexpr std::size_t kTypeOfLoader = 0x210;      // u8
inline constexpr std::size_t kLoadflags = 0x211;         // u8
inline constexpr std::size_t kRamdiskImage = 0x218;      // u32
inline constexpr std::size_t kRamdiskSize = 0x21c;       // u32
inline constexpr std::size_t kCmdLinePtr = 0x228;        // u32
inline constexpr std::size_t kInitrdAddrMax = 0x22c;     // u32
inline constexpr std::size_t kKernelAlignment = 0x230;   // u32
inline constexpr std::size_t kXloadflags = 0x236;        // u16
inline constexpr std::size_t kCmdlineSize = 0x238;       // u32, from version 2.06 on
inline constexpr std::size_t kSetupData = 0x250;         // u64, from version 2.09 on
inline constexpr std::size_t kSetupHeaderLimit = 0x290;  // the header cannot reach past here
inline constexpr std::size_t kE820Table = 0x2d0;
inline constexpr std::size_t kE820EntrySize = 20;
inline constexpr std::size_t kE820MaxEntries = 128;
}  // namespace zero_page

inline constexpr std::uint32_t kSetupHeaderMagic = 0x53726448;  // "HdrS"
inline constexpr std::uint8_t kLoaderUndefined = 0xff;          // a boot loader without a number
inline constexpr std::uint8_t kLoadedHigh = 1U << 0;            // loadflags
inline constexpr std::uint8_t kKaslrFlag = 1U << 1;

// The longest command line that a kernel takes, in bytes without the final zero, as its setup
// header says (bytes from offset 0x1f1 of the image on); 2047 without a header, 255 before 2.06.
std::uint32_t cmdline_limit(std::span<const std::byte> setup_header) noexcept;

// Puts the command line and its final zero at kCommandLine. Errors: kBadConfig with both numbers
// when it is longer than `limit` or than the room for it, or when it contains a zero byte.
Result<Gpa> write_cmdline(const GuestMemory& memory, std::string_view cmdline, std::uint32_t limit);

// One node of the setup_data list.
struct SetupData {
  static constexpr std::uint32_t kRngSeed = 9;  // SETUP_RNG_SEED
  std::uint32_t type = 0;
  std::vector<std::byte> bytes;
};

// A node with 64 fresh random bytes of the host's, with which Linux seeds its generator before
// anything else can. Errors: kIo when the host has none to give.
Result<SetupData> make_rng_seed();

// Writes the nodes to kSetupData, linked in this order; the address of the first, or 0 when there
// is none. Errors: kOutOfRange when they do not fit.
Result<Gpa> write_setup_data(const GuestMemory& memory, std::span<const SetupData> nodes);

struct BootParams {
  // The image's bytes from offset 0x1f1 to where its header ends or further; empty for a kernel
  // without one, which gets a minimal header of version 2.15.
  std::span<const std::byte> setup_header = {};
  Gpa cmdline = {};                      // of a zero-terminated string
  std::optional<GpaRange> initrd = {};   // anywhere in RAM
  std::span<const E820Entry> e820 = {};  // at most 128
  std::optional<Gpa> rsdp = {};          // of the ACPI tables, when there are any
  Gpa setup_data = {};                   // of the first node; 0 without one
  bool kaslr = false;                    // the kernel does not sit where it was linked
};

// Writes the zero page to kZeroPage and returns its address. Errors: kBadConfig when the e820 map
// is too long; kOutOfRange when there is no RAM at kZeroPage.
Result<Gpa> write_boot_params(const GuestMemory& memory, const BootParams& params);

}  // namespace vmm::x86

// The setup header of a Linux/x86 kernel image.
//
// Source: Linux, Documentation/x86/boot.rst ("The Linux/x86 Boot Protocol"), versions 2.00 to 2.15.
// Field names are those of that document.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/loader/elf.h"

namespace vmm::loader {

// loadflags
inline constexpr std::uint8_t kLoadedHigh = 1U << 0;
inline constexpr std::uint8_t kKaslrFlag = 1U << 1;  // kernel-internal: its address was randomised
// xloadflags
inline constexpr std::uint16_t kXlfKernel64 = 1U << 0;
inline constexpr std::uint16_t kXlfCanBeLoadedAbove4G = 1U << 1;
inline constexpr std::uint16_t kXlfEfiHandover32 = 1U << 2;
inline constexpr std::uint16_t kXlfEfiHandover64 = 1U << 3;
inline constexpr std::uint16_t kXlfEfiKexec = 1U << 4;
inline constexpr std::uint16_t kXlf5Level = 1U << 5;
inline constexpr std::uint16_t kXlf5LevelEnabled = 1U << 6;

// Fields that the image's protocol version does not have hold what boot.rst tells a loader to
// assume.
struct SetupHeader {
  std::uint16_t version = 0;  // 0x020f is 2.15
  std::uint8_t setup_sects = 4;
  std::uint32_t syssize = 0;  // of the protected-mode code, in units of 16 bytes
  std::uint8_t loadflags = 0;
  std::uint32_t code32_start = 0x100000;
  std::uint32_t initrd_addr_max = 0x37ffffff;  // 2.03: the highest address of an initrd's last byte
  std::uint32_t kernel_alignment = 0;          // 2.05: bytes
  bool relocatable_kernel = false;             // 2.05
  std::uint8_t min_alignment = 0;              // 2.10: log2 of bytes
  std::uint16_t xloadflags = 0;                // 2.12
  std::uint32_t cmdline_size = 255;            // 2.06: without the terminating zero
  std::uint64_t pref_address = 0;              // 2.10
  std::uint32_t init_size = 0;                 // 2.10: memory needed from the runtime address on
  std::uint32_t handover_offset = 0;           // 2.11
  std::uint32_t kernel_info_offset = 0;        // 2.15

  std::string kernel_version;        // the version string, printable characters only; may be empty
  FileRange protected_mode;          // the 32-bit part of the file; not empty
  std::optional<FileRange> payload;  // 2.08: payload_offset and payload_length, in the file
  std::vector<std::byte> bytes;      // from 0x1f1 on: what a loader copies to the zero page

  bool at_least(std::uint16_t protocol) const noexcept { return version >= protocol; }
  bool has_64bit_entry() const noexcept { return (xloadflags & kXlfKernel64) != 0; }
};

// Offset of the setup header in the image and in the zero page, and the end of its room there.
inline constexpr std::size_t kSetupHeaderAt = 0x1f1;
inline constexpr std::size_t kSetupHeaderEnd = 0x290;

// True when the file has the boot sector mark and the magic "HdrS".
bool is_bzimage(std::span<const std::byte> file) noexcept;

// Errors: kBadKernel naming the field and its value; the caller adds the file's name.
Result<SetupHeader> parse_setup_header(std::span<const std::byte> file);

}  // namespace vmm::loader

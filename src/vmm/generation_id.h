// The number that tells a guest whether it is still the machine that it was: another one in each
// machine that goes on from a snapshot. Operating systems that see it change make their random
// numbers anew (Microsoft, "Virtual Machine Generation ID"; Linux's driver vmgenid).
//
// It lies in memory that is reserved in the guest's map, and an event of ACPI tells of a change. A
// file of fw_cfg says where, to firmware and to who restores a snapshot: a machine without that
// file has no such number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/machine.h"
#include "vmm/snapshot/machine_state.h"

namespace vmm {

inline constexpr std::size_t kGenerationIdSize = 16;
inline constexpr Gpa kGenerationId{0xe'f800};  // in x86::kAcpiNvs, behind the FACS
inline constexpr std::uint8_t kGenerationIdGpe = 2;
inline constexpr std::string_view kGenerationIdFile = "etc/vmgenid_addr";

// What that file says: kGenerationId, 64 bits, little-endian.
std::vector<std::byte> generation_id_file();

// Puts a new number, of the host's random ones, at `address`. Errors: kOutOfRange when there is no
// RAM; kIo without random numbers.
Result<void> write_generation_id(const GuestMemory& memory, Gpa address);

// Gives the machine, which is at rest, a new number and the guest an event, if `files`, which are
// untrusted, say that it has one. Errors: kBadState when the file cannot be; as above.
Result<void> renew_generation_id(const Machine& machine, std::span<const SavedFile> files);

}  // namespace vmm

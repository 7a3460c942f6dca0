// CRC-32C (Castagnoli; RFC 3720, appendix B.4): finds what a disk or a copy got wrong. No
// protection against somebody who wants to deceive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm {

// Of `bytes`, going on from an earlier answer (0 for the first).
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

}  // namespace vmm

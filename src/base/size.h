// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm {

constexpr std::uint64_t KiB(std::uint64_t n) noexcept { return n << 10; }
constexpr std::uint64_t MiB(std::uint64_t n) noexcept { return n << 20; }
constexpr std::uint64_t GiB(std::uint64_t n) noexcept { return n << 30; }

// "512M", "2G", "1GiB", "1.5G", "4096", "0x100000", "64 KiB"; K, M, G, T are powers of 1024, in
// either case. Errors: kBadConfig, naming the text and what is allowed.
Result<std::uint64_t> parse_size(std::string_view text);

// "512 MiB", "1.5 GiB", "100 bytes": for messages.
std::string format_size(std::uint64_t bytes);

}  // namespace vmm

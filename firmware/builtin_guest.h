// The guest that is part of the library: a flat image that prints what it finds and offers a
// prompt on COM1. How it wants to be started is written in firmware/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm::firmware {

// Guest-physical address at which the image is loaded and entered (64-bit mode, first byte).
inline constexpr std::uint64_t kBuiltinGuestAddress = 0x100000;

// Guest-physical end (exclusive) of what the guest uses as its own: image, variables and stacks.
inline constexpr std::uint64_t kBuiltinGuestEnd = 0x200000;

// Page that it overwrites with real-mode code to start further processors; nothing that it is
// handed (zero page, command line, ACPI tables) may lie in it.
inline constexpr std::uint64_t kBuiltinGuestTrampoline = 0x8000;

// The image: static storage, always the same bytes. Thread-safe.
std::span<const std::byte> builtin_guest() noexcept;

}  // namespace vmm::firmware

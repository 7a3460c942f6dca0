// Linux's system calls on x86-64 in words. Pure but for the guest's memory, which is read by a
// function.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vmm {

// What is known of one: "openat" and "fsxo", a letter for each argument.
struct SyscallForm {
  std::string_view name;
  std::string_view arguments;
};

// Nothing for a number that is none (Linux: arch/x86/entry/syscalls/syscall_64.tbl).
std::optional<SyscallForm> syscall_form(std::uint64_t number);

// How many bytes could be read from a user's address on, at most as many as there is room for.
using ReadUser = std::function<std::size_t(std::uint64_t address, std::span<std::byte> bytes)>;

// `write(1, "hello\n", 6)`. Of a string 64 bytes are read at most, of a list of strings eight
// strings; what cannot be read is shown as its address.
std::string syscall_text(std::uint64_t number, const std::array<std::uint64_t, 6>& arguments,
                         const ReadUser& read);

// `write = 6`, `openat = -2 ENOENT`.
std::string syscall_return_text(std::uint64_t number, std::uint64_t result);

}  // namespace vmm

// A Linux guest's memory by its kernel's virtual addresses, for the host's side.
//
// Threats: page tables and contents are the guest's. All is copied; what lies anywhere is judged by
// who asked for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "memory/page_walk.h"

namespace vmm::guest_linux {

// Borrows the memory. Thread-compatible; the guest stands still, or what is read may not fit
// together.
class KernelMemory {
 public:
  // `tables`: as x86::add_kernel_context() collects them; the first that maps an address counts.
  KernelMemory(const GuestMemory& memory, std::vector<PagingContext> tables)
      : memory_(memory), tables_(std::move(tables)) {}

  const GuestMemory& physical() const noexcept { return memory_; }

  // All bytes or none. Errors: kOutOfRange naming the address that is not mapped, or is not RAM.
  Result<void> read(std::uint64_t address, std::span<std::byte> bytes) const;
  template <GuestValue T>
  Result<T> read(std::uint64_t address) const {
    T value;
    VMM_TRY(read(address, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  // An unsigned integer of 1, 2, 4 or 8 bytes. Errors: as above; kBadState for another size.
  Result<std::uint64_t> integer(std::uint64_t address, std::uint64_t size) const;
  // What an array of `size` bytes says up to its first zero, fit to be printed.
  Result<std::string> text(std::uint64_t address, std::size_t size) const;

 private:
  const GuestMemory& memory_;
  std::vector<PagingContext> tables_;
};

// A guest's text as printable ASCII: other bytes become "\xNN".
std::string printable(std::string_view text);

}  // namespace vmm::guest_linux

// Translations of one CPU's addresses, remembered: what a processor's TLB is to it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "memory/guest_memory.h"
#include "memory/page_walk.h"
#include "vmm/interpreter/table_map.h"

namespace vmm::interpreter {

// Access to guest-virtual memory at CPL 0. Plain RAM is accessed in place. Memory that may go away,
// because it can be unplugged or is a file's, is copied by who guards it (copy_in(), copy_out());
// everything else is KVM's. Used by one thread.
class Tlb {
 public:
  static constexpr std::uint64_t kPage = 4096;

  // Why an address cannot be accessed.
  struct Miss {
    bool fault = false;    // #PF with error_code; else: KVM has to do it
    bool guarded = false;  // or it is memory that can only be copied
    bool device = false;   // or there is no memory: `gpa` is a device's, if anybody's
    std::uint64_t address = 0;
    std::uint32_t error_code = 0;
    Gpa gpa{};
  };

  // All are borrowed.
  Tlb(const GuestMemory& memory, TableMap& tables) : memory_(memory), tables_(tables) {}

  // The registers that decide about translations have been set: forgets all if they changed.
  void set_context(const PagingContext& context);
  const PagingContext& context() const noexcept { return context_; }
  void set_alignment_check(bool on) noexcept { key_ = (key_ & ~kAcBit) | (on ? kAcBit : 0); }
  void forget() noexcept;

  // The bytes [address, address + size) in place, all of one page: for reading, or for fetching
  // code. Null: last_miss(), which also says when they are not of one page (crosses()).
  const std::byte* read(std::uint64_t address, std::size_t size) noexcept {
    return find(Use::kRead, address, size);
  }
  const std::byte* fetch(std::uint64_t address) noexcept { return find(Use::kFetch, address, 1); }
  // The same for writing what is not a page table; those that are: null, and take_table().
  std::byte* write(std::uint64_t address, std::size_t size) noexcept {
    const Entry& e = entry(Use::kWrite, address);
    if (e.tag != tag(address) || (address & kOffset) + size > kPage) [[unlikely]] {
      return write_slow(address, size);
    }
    if (e.mark->load(std::memory_order_acquire) != 0) [[unlikely]] {
      return on_table(e, address);
    }
    return e.page + (address & kOffset);
  }

  static constexpr bool crosses(std::uint64_t address, std::size_t size) noexcept {
    return (address & kOffset) + size > kPage;
  }
  const Miss& last_miss() const noexcept { return miss_; }

  // Where the last write() that answered null would have gone, when that is a page table.
  struct Table {
    std::byte* at = nullptr;
    TableMap::Mark* mark = nullptr;
  };
  // Taken once: null when the last write failed for another reason.
  Table take_table() noexcept {
    const Table table = table_;
    table_ = {};
    return table;
  }
  TableMap& tables() noexcept { return tables_; }

  // Copies of any size and place, all or nothing, through all memory that is not a device's. False:
  // last_miss(); a page table is not written either.
  bool copy_in(std::uint64_t from, std::span<std::byte> bytes) noexcept;
  bool copy_out(std::uint64_t to, std::span<const std::byte> bytes) noexcept;

 private:
  enum class Use : std::uint8_t { kRead, kWrite, kFetch };
  struct Entry {
    std::uint64_t tag = ~0ULL;  // the page's address and key_; no address has all bits
    std::byte* page = nullptr;
    TableMap::Mark* mark = nullptr;
  };
  static constexpr std::size_t kEntries = 1024;
  static constexpr std::uint64_t kOffset = kPage - 1;
  // key_: AC, and how often all was forgotten.
  static constexpr std::uint64_t kAcBit = 1;
  static constexpr std::uint64_t kGeneration = 2;

  std::uint64_t tag(std::uint64_t address) const noexcept { return (address & ~kOffset) | key_; }
  Entry& entry(Use use, std::uint64_t address) noexcept {
    return entries_[static_cast<std::size_t>(use)][address / kPage % kEntries];
  }
  std::byte* find(Use use, std::uint64_t address, std::size_t size) noexcept {
    const Entry& e = entry(use, address);
    if (e.tag != tag(address) || (address & kOffset) + size > kPage) [[unlikely]] {
      return find_slow(use, address, size);
    }
    return e.page + (address & kOffset);
  }
  std::byte* find_slow(Use use, std::uint64_t address, std::size_t size) noexcept;
  std::byte* write_slow(std::uint64_t address, std::size_t size) noexcept;
  std::byte* on_table(const Entry& entry, std::uint64_t address) noexcept {
    miss_ = {};
    table_ = {entry.page + (address & kOffset), entry.mark};
    return nullptr;
  }
  bool fill(Use use, std::uint64_t address) noexcept;
  PageWalk walk(Use use, std::uint64_t address) const noexcept;
  bool has_key(const PageWalk& found) const noexcept;
  // One page's part of a copy. `at`: in place, or null and by `gpa`.
  struct Piece {
    std::byte* at = nullptr;
    Gpa gpa{};
  };
  bool find_piece(Use use, std::uint64_t address, std::size_t size, Piece& piece) noexcept;

  const GuestMemory& memory_;
  TableMap& tables_;
  PagingContext context_{};
  std::uint64_t key_ = 0;
  Miss miss_{};
  Table table_{};
  std::array<std::array<Entry, kEntries>, 3> entries_{};
};

}  // namespace vmm::interpreter

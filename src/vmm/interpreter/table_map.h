// Which pages of guest RAM hold the guest's page tables.
//
// KVM without hardware page tables keeps copies of the guest's, and follows them because it sees
// each write to one. A write from this process it does not see. So who executes a guest's code here
// has to know where the tables are, and leave to KVM what changes an entry that KVM may have a copy
// of: one that was present. (What was not present is looked up again when it is needed.)
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/interpreter/zero_array.h"

namespace vmm::interpreter {

// For one machine; any thread. Pages are added when they are found: behind a root, or behind an
// entry that is written into a table that is known. A guest uses its pages for other things later,
// and nothing tells when: so once in a while KVM is made to drop all its copies, and only what lies
// behind the roots that are loaded then is known.
class TableMap {
 public:
  // Bit n: the page is a table of level n + 1 (1: page table, 4: PML4). 0: it is none.
  using Mark = std::atomic<std::uint8_t>;
  static constexpr std::uint8_t kLeafTable = 1;

  // Makes KVM drop every copy that it has of a table.
  using DropCopies = std::function<Result<void>()>;

  // `memory` is borrowed.
  TableMap(const GuestMemory& memory, std::uint32_t cpus, DropCopies drop_copies);

  // The mark of the page of RAM, plugged or not, that an address lies in; null when it is in none.
  // Lives as long as this.
  Mark* mark(Gpa address) noexcept;
  // The root that a CPU has loaded: all tables behind it.
  void add_root(std::uint32_t cpu, Gpa root, unsigned levels);
  // `entry` is, or is about to be, in tables with this mark: what it leads to is a table, too.
  void add_entry(std::uint64_t entry, std::uint8_t mark_of_table);
  // Something else than this process has written tables: looks through all that are known.
  void look_again();
  // A store was left to KVM because it hit a table. True: there have been so many that it is worth
  // to begin_anew().
  bool count_refusal() noexcept {
    return refusals_.fetch_add(1, std::memory_order_relaxed) + 1 >= kRefusals;
  }
  // Forgets all, and knows the tables behind the roots that are loaded. Errors: KVM's.
  Result<void> begin_anew();
  // How many pages are marked.
  std::uint64_t size() const;

 private:
  using Marks = ZeroArray<Mark>;
  struct Region {
    std::uint64_t base = 0, pages = 0;
    Marks marks;
    Marks found;  // by begin_anew(), while it looks
  };
  struct Root {
    Gpa root{};
    unsigned levels = 0;  // 0: none was loaded yet
  };
  // What begin_anew() costs is worth some hundred stores in KVM.
  static constexpr std::uint32_t kRefusals = 512;

  Mark* find(Gpa address, Marks Region::*where) noexcept;
  // Both with the lock held.
  void add(Gpa table, unsigned level, Marks Region::*where);
  void add_children(Gpa table, unsigned level, Marks Region::*where);

  const GuestMemory& memory_;
  const DropCopies drop_copies_;
  std::vector<Region> regions_;
  std::atomic<std::uint32_t> refusals_{0};
  std::mutex mutex_;
  std::vector<Root> roots_;  // of each CPU
};

}  // namespace vmm::interpreter

// Knows which pages of a machine's memory are not as in a snapshot: by KVM's log of the guest's
// writes and the marks of our own.
#pragma once

#include <memory>
#include <optional>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/ram_slots.h"
#include "vmm/snapshot/page_set.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/snapshot/snapshot_id.h"

namespace vmm {

// For one machine, at rest.
class TrackedMemory {
 public:
  // Both are borrowed.
  TrackedMemory(const GuestMemory& memory, RamSlots& slots)
      : memory_(memory),
        slots_(slots),
        since_like_(memory.size() / PageSet::kPage),
        since_file_(memory.size() / PageSet::kPage) {}

  // Memory is as in `snapshot` now; what is written from here on is known.
  Result<void> begin(const std::shared_ptr<const Snapshot>& snapshot);
  // Makes memory as in `snapshot`, which has the same regions: by the pages that were written
  // since, when it was like that; else by all of them. Then as begin().
  Result<void> reset_to(const std::shared_ptr<const Snapshot>& snapshot);
  // The first page that is not as in `snapshot`, which has the same regions; nothing: none.
  Result<std::optional<Gpa>> difference(const Snapshot& snapshot);
  // Memory is as in the file with this ID now; what is written from here on is known. Without
  // `always`, only if something is tracked already: it costs the guest a fault a page.
  Result<void> saved(const SnapshotId& file, bool always);
  // Which pages may not be as in the file with this ID; nothing when that is not known.
  Result<std::optional<PageSet>> written_since(const SnapshotId& file);
  // How many pages the last reset_to() has put back.
  std::uint64_t put_back() const noexcept { return put_back_; }

 private:
  // Adds all that was written since the last call to both sets.
  Result<void> take_written();

  const GuestMemory& memory_;
  RamSlots& slots_;
  // What memory was like, but for the pages written since. Weak: nobody goes back to a snapshot
  // that only this knows of, and it may be large.
  std::weak_ptr<const Snapshot> like_;
  PageSet since_like_;
  std::optional<SnapshotId> file_ = {};  // the same
  PageSet since_file_;
  std::uint64_t put_back_ = 0;
};

}  // namespace vmm

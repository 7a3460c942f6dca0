// Knows which pages of a machine's memory are not as in a snapshot: by KVM's log of the guest's
// writes and the marks of our own.
#pragma once

#include <memory>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/snapshot/page_set.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm {

// For one machine, at rest.
class TrackedMemory {
 public:
  // Both are borrowed. Slots are numbered as the regions (set_ram_slots()).
  TrackedMemory(const GuestMemory& memory, const kvm::VmFd& vm) : memory_(memory), vm_(vm) {}

  // Memory is as in `snapshot` now; what is written from here on is known.
  Result<void> begin(std::shared_ptr<const Snapshot> snapshot);
  // Makes memory as in `snapshot`, which has the same regions: by the pages that were written
  // since, when it was like that; else by all of them. Then as begin().
  Result<void> reset_to(std::shared_ptr<const Snapshot> snapshot);
  // How many pages the last reset_to() has put back.
  std::uint64_t put_back() const noexcept { return put_back_; }

 private:
  Result<void> log_writes();
  // All that was written since the last call.
  Result<PageSet> take_written();

  const GuestMemory& memory_;
  const kvm::VmFd& vm_;
  std::shared_ptr<const Snapshot> like_;  // what memory was like, but for the pages written
  bool logging_ = false;
  std::uint64_t put_back_ = 0;
};

}  // namespace vmm

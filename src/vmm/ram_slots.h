// The memory slots that show a guest its memory: one for each region, numbered as the regions, as
// long as nobody guards a page. A guarded page is one that the guest cannot write: KVM reports each
// write instead (as a write to a device), and whoever guards the page decides. For that a region's
// slot is cut into pieces, those with guarded pages read-only. A hidden page is one that it cannot
// read either: no slot has it, and KVM reports each access that an instruction makes. What the
// processor reads by itself (code, page tables, descriptors) must not be hidden. See
// docs/debugging.md.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/snapshot/page_set.h"

namespace vmm {

// After set_ram_slots() (guest_ram.h). Changes need the CPUs at rest; one caller at a time.
class RamSlots {
 public:
  static constexpr std::uint64_t kPage = 4096;

  // Both are borrowed. Numbers from `most` on belong to others.
  RamSlots(const GuestMemory& memory, const kvm::VmFd& vm, std::uint32_t most)
      : memory_(memory), vm_(vm), most_(most) {}
  RamSlots(const RamSlots&) = delete;
  RamSlots& operator=(const RamSlots&) = delete;

  // These pages, by their guest-physical addresses, and no others: guarded, or hidden, which wins.
  // Only RAM that is always there (RegionKind::kRam) can be either. Errors: kOutOfRange, nothing
  // has changed; of the host.
  Result<void> guard(const std::set<Gpa>& pages, const std::set<Gpa>& hidden = {});
  const std::set<Gpa>& guarded() const noexcept { return guarded_; }
  const std::set<Gpa>& hidden() const noexcept { return hidden_; }
  // Whether a page may be guarded.
  bool can_guard(Gpa page) const noexcept;

  // KVM logs the guest's writes to RAM from here on.
  Result<void> log_writes();
  bool logs_writes() const noexcept { return logging_; }
  // The pages of region number `region` that the guest has written since the last call: added.
  Result<void> take_written(std::size_t region, PageSet& pages);

 private:
  using Pieces = std::vector<kvm::Slot>;  // of one region, by address

  Result<void> cut(std::size_t region, const std::set<Gpa>& pages, const std::set<Gpa>& hidden);
  Result<void> replace(std::size_t region, Pieces pieces);
  Pieces pieces_of(std::size_t region, const std::set<Gpa>& pages, const std::set<Gpa>& hidden);
  Pieces current(std::size_t region) const;
  kvm::Slot whole(std::size_t region) const;

  const GuestMemory& memory_;
  const kvm::VmFd& vm_;
  const std::uint32_t most_;
  bool logging_ = false;
  std::set<Gpa> guarded_, hidden_;
  std::map<std::size_t, Pieces> pieces_;  // of regions that are cut
};

}  // namespace vmm

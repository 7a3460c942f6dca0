#include "vmm/snapshot/tracked_memory.h"

#include <utility>

#include "vmm/kvm/chip_state.h"
#include "vmm/snapshot/ram_image.h"

namespace vmm {

Result<void> TrackedMemory::log_writes() {
  if (logging_) return {};
  std::uint32_t number = 0;
  for (const GuestRegion& region : memory_.regions()) {
    const std::uint32_t slot = number++;
    if (region.kind() != RegionKind::kRam) continue;
    VMM_TRY(vm_.set_slot(
        {.number = slot, .range = region.range(), .hva = region.hva(), .log_dirty = true}));
  }
  logging_ = true;
  return {};
}

Result<PageSet> TrackedMemory::take_written() {
  PageSet all(memory_.size() / PageSet::kPage);
  std::uint64_t first = 0;
  std::uint32_t number = 0;
  for (const GuestRegion& region : memory_.regions()) {
    const std::uint32_t slot = number++;
    if (region.kind() != RegionKind::kRam) continue;
    PageSet pages(region.range().size() / PageSet::kPage);
    VMM_TRY(kvm::take_dirty_log(vm_, slot, pages.words()));
    region.written()->take(pages.words());
    pages.for_each([&](std::uint64_t page) { all.add(first + page); });
    first += pages.pages();
  }
  return all;
}

Result<void> TrackedMemory::begin(std::shared_ptr<const Snapshot> snapshot) {
  VMM_TRY(log_writes());
  VMM_TRY(take_written());
  like_ = std::move(snapshot);
  return {};
}

Result<void> TrackedMemory::reset_to(std::shared_ptr<const Snapshot> snapshot) {
  VMM_TRY(log_writes());
  PageSet which = VMM_TRY(take_written());
  if (like_ != snapshot) {
    for (std::uint64_t page = 0; page < which.pages(); ++page) which.add(page);
  }
  snapshot->ram().put_back(memory_, which);
  put_back_ = which.count();
  like_ = std::move(snapshot);
  return {};
}

}  // namespace vmm

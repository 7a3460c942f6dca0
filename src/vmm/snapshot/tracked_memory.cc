#include "vmm/snapshot/tracked_memory.h"

#include "vmm/snapshot/ram_image.h"

namespace vmm {
namespace {

void add_all(PageSet& pages) {
  for (std::uint64_t page = 0; page < pages.pages(); ++page) pages.add(page);
}

}  // namespace

Result<void> TrackedMemory::take_written() {
  std::uint64_t first = 0;
  std::size_t number = 0;
  for (const GuestRegion& region : memory_.regions()) {
    const std::size_t which = number++;
    if (region.kind() != RegionKind::kRam) continue;
    PageSet pages(region.range().size() / PageSet::kPage);
    VMM_TRY(slots_.take_written(which, pages));
    region.written()->take(pages.words());
    pages.for_each([&](std::uint64_t page) {
      since_like_.add(first + page);
      since_file_.add(first + page);
    });
    first += pages.pages();
  }
  return {};
}

Result<void> TrackedMemory::begin(const std::shared_ptr<const Snapshot>& snapshot) {
  VMM_TRY(slots_.log_writes());
  VMM_TRY(take_written());
  since_like_.clear();
  like_ = snapshot;
  return {};
}

Result<void> TrackedMemory::reset_to(const std::shared_ptr<const Snapshot>& snapshot) {
  VMM_TRY(slots_.log_writes());
  VMM_TRY(take_written());
  if (like_.lock() != snapshot) add_all(since_like_);
  snapshot->ram().put_back(memory_, since_like_);
  put_back_ = since_like_.count();
  since_file_.add(since_like_);
  since_like_.clear();
  like_ = snapshot;
  return {};
}

Result<std::optional<Gpa>> TrackedMemory::difference(const Snapshot& snapshot) {
  VMM_TRY(take_written());
  // What neither of both images has, and nobody has written, is all zeroes.
  PageSet candidates = since_like_;
  candidates.add(snapshot.ram().pages());
  if (const auto like = like_.lock()) {
    candidates.add(like->ram().pages());
  } else {
    add_all(candidates);  // of a snapshot that is gone nobody knows what it had
  }
  return snapshot.ram().difference(memory_, candidates);
}

Result<void> TrackedMemory::saved(const SnapshotId& file, bool always) {
  if (!slots_.logs_writes() && !always) return {};
  VMM_TRY(slots_.log_writes());
  VMM_TRY(take_written());
  since_file_.clear();
  file_ = file;
  return {};
}

Result<std::optional<PageSet>> TrackedMemory::written_since(const SnapshotId& file) {
  if (!slots_.logs_writes() || file_ != file) return std::nullopt;
  VMM_TRY(take_written());
  return since_file_;
}

}  // namespace vmm

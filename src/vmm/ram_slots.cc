#include "vmm/ram_slots.h"

#include <algorithm>
#include <utility>

#include "vmm/kvm/chip_state.h"

namespace vmm {
namespace {

GpaRange range_of(Gpa base, Gpa end) { return *GpaRange::create(base, end.offset_from(base)); }

}  // namespace

bool RamSlots::can_guard(Gpa page) const noexcept {
  const GuestRegion* const region = memory_.find(page);
  return region != nullptr && region->kind() == RegionKind::kRam && page.value % kPage == 0;
}

kvm::Slot RamSlots::whole(std::size_t region) const {
  const GuestRegion& of = memory_.regions()[region];
  return {.number = static_cast<std::uint32_t>(region),
          .range = of.range(),
          .hva = of.hva(),
          .read_only = of.read_only(),
          .log_dirty = logging_ && of.kind() == RegionKind::kRam};
}

RamSlots::Pieces RamSlots::current(std::size_t region) const {
  const auto cut = pieces_.find(region);
  return cut == pieces_.end() ? Pieces{whole(region)} : cut->second;
}

// Runs of guarded pages and what lies between them. The first keeps the region's number, the others
// have what is free behind the regions'.
RamSlots::Pieces RamSlots::pieces_of(std::size_t region, const std::set<Gpa>& pages) {
  const kvm::Slot all = whole(region);
  Pieces pieces;
  Gpa from = all.range.base();
  const auto add = [&](Gpa end, bool read_only) {
    if (end == from) return;
    kvm::Slot piece = all;
    piece.range = range_of(from, end);
    piece.hva = all.hva + from.offset_from(all.range.base());
    piece.read_only = read_only;
    pieces.push_back(piece);
    from = end;
  };
  for (auto page = pages.lower_bound(from); page != pages.end() && *page < all.range.end();) {
    add(*page, false);
    Gpa end = *page;
    while (page != pages.end() && *page == end && end < all.range.end()) {
      end = Gpa(end.value + kPage);
      ++page;
    }
    add(end, true);
  }
  add(all.range.end(), false);

  std::set<std::uint32_t> taken;
  for (const auto& [other, theirs] : pieces_) {
    if (other == region) continue;
    for (const kvm::Slot& piece : theirs) taken.insert(piece.number);
  }
  auto next = static_cast<std::uint32_t>(memory_.regions().size());
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    while (taken.contains(next)) ++next;
    pieces[i].number = next++;
  }
  return pieces;
}

Result<void> RamSlots::replace(std::size_t region, Pieces pieces) {
  const Pieces old = current(region);
  for (const kvm::Slot& piece : old) VMM_TRY(vm_.set_slot({.number = piece.number, .range = {}}));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    auto set = vm_.set_slot(pieces[i]);
    if (set) continue;
    // The guest needs its memory whatever happens.
    for (std::size_t j = 0; j < i; ++j)
      (void)vm_.set_slot({.number = pieces[j].number, .range = {}});
    for (const kvm::Slot& piece : old) VMM_TRY(vm_.set_slot(piece));
    return set;
  }
  pieces_[region] = std::move(pieces);
  return {};
}

Result<void> RamSlots::cut(std::size_t region, const std::set<Gpa>& pages) {
  Pieces pieces = pieces_of(region, pages);
  for (const kvm::Slot& piece : pieces) {
    if (piece.number < most_) continue;
    return fail(ErrorCode::kUnsupported,
                "KVM has {} memory slots, too few to guard {} pages one by one", most_,
                pages.size());
  }
  const GuestRegion& of = memory_.regions()[region];
  if (logging_) {
    // The log goes with the slots: what it says is noted with our own marks.
    PageSet written(of.range().size() / kPage);
    VMM_TRY(take_written(region, written));
    written.for_each([&of](std::uint64_t page) { of.mark_written(page * kPage, kPage); });
  }
  VMM_TRY(replace(region, std::move(pieces)));
  if (pieces_[region].size() == 1 && !pieces_[region].front().read_only) pieces_.erase(region);
  return {};
}

Result<void> RamSlots::guard(const std::set<Gpa>& pages) {
  if (pages == guarded_) return {};
  const auto bad =
      std::find_if_not(pages.begin(), pages.end(), [this](Gpa page) { return can_guard(page); });
  if (bad != pages.end()) {
    return fail(ErrorCode::kOutOfRange, "There is no RAM to guard at GPA {}", *bad);
  }
  const auto in = [](const std::set<Gpa>& all, const GpaRange& range) {
    return std::vector<Gpa>(all.lower_bound(range.base()), all.lower_bound(range.end()));
  };
  for (std::size_t i = 0; i < memory_.regions().size(); ++i) {
    const GpaRange& range = memory_.regions()[i].range();
    if (in(pages, range) != in(guarded_, range)) VMM_TRY(cut(i, pages));
  }
  guarded_ = pages;
  return {};
}

Result<void> RamSlots::log_writes() {
  if (logging_) return {};
  for (std::size_t i = 0; i < memory_.regions().size(); ++i) {
    if (memory_.regions()[i].kind() != RegionKind::kRam) continue;
    Pieces pieces = current(i);
    for (kvm::Slot& piece : pieces) {
      piece.log_dirty = true;
      VMM_TRY(vm_.set_slot(piece));
    }
    if (pieces_.contains(i)) pieces_[i] = std::move(pieces);
  }
  logging_ = true;
  return {};
}

Result<void> RamSlots::take_written(std::size_t region, PageSet& pages) {
  const GpaRange& range = memory_.regions()[region].range();
  for (const kvm::Slot& piece : current(region)) {
    PageSet written(piece.range.size() / kPage);
    VMM_TRY(kvm::take_dirty_log(vm_, piece.number, written.words()));
    const std::uint64_t first = piece.range.base().offset_from(range.base()) / kPage;
    written.for_each([&](std::uint64_t page) { pages.add(first + page); });
  }
  return {};
}

}  // namespace vmm

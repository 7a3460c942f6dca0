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

// Runs of guarded pages and what lies between them, but for hidden ones. The first keeps the
// region's number, the others have what is free behind the regions'.
RamSlots::Pieces RamSlots::pieces_of(std::size_t region, const std::set<Gpa>& pages,
                                     const std::set<Gpa>& hidden) {
  enum class Sight : std::uint8_t { kWhole, kReadOnly, kNone };
  const kvm::Slot all = whole(region);
  Pieces pieces;
  Gpa from = all.range.base();
  const auto add = [&](Gpa end, Sight sight) {
    if (end == from) return;
    kvm::Slot piece = all;
    piece.range = range_of(from, end);
    piece.hva = all.hva + from.offset_from(all.range.base());
    piece.read_only = sight == Sight::kReadOnly;
    if (sight != Sight::kNone) pieces.push_back(piece);
    from = end;
  };
  std::map<Gpa, Sight> special;
  for (const Gpa page : hidden) special.emplace(page, Sight::kNone);
  for (const Gpa page : pages) special.emplace(page, Sight::kReadOnly);
  for (auto page = special.lower_bound(from);
       page != special.end() && page->first < all.range.end();) {
    add(page->first, Sight::kWhole);
    const Sight sight = page->second;
    Gpa end = page->first;
    while (page != special.end() && page->first == end && page->second == sight &&
           end < all.range.end()) {
      end = Gpa(end.value + kPage);
      ++page;
    }
    add(end, sight);
  }
  add(all.range.end(), Sight::kWhole);

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

Result<void> RamSlots::cut(std::size_t region, const std::set<Gpa>& pages,
                           const std::set<Gpa>& hidden) {
  Pieces pieces = pieces_of(region, pages, hidden);
  for (const kvm::Slot& piece : pieces) {
    if (piece.number < most_) continue;
    return fail(ErrorCode::kUnsupported,
                "KVM has {} memory slots, too few to guard {} pages one by one", most_,
                pages.size() + hidden.size());
  }
  const GuestRegion& of = memory_.regions()[region];
  if (logging_) {
    // The log goes with the slots: what it says is noted with our own marks.
    PageSet written(of.range().size() / kPage);
    VMM_TRY(take_written(region, written));
    written.for_each([&of](std::uint64_t page) { of.mark_written(page * kPage, kPage); });
  }
  VMM_TRY(replace(region, std::move(pieces)));
  const Pieces& now = pieces_[region];
  if (now.size() == 1 && !now.front().read_only && now.front().range == of.range()) {
    pieces_.erase(region);
  }
  return {};
}

Result<void> RamSlots::guard(const std::set<Gpa>& pages, const std::set<Gpa>& hidden) {
  if (pages == guarded_ && hidden == hidden_) return {};
  for (const std::set<Gpa>* const all : {&pages, &hidden}) {
    const auto bad =
        std::find_if_not(all->begin(), all->end(), [this](Gpa page) { return can_guard(page); });
    if (bad == all->end()) continue;
    return fail(ErrorCode::kOutOfRange, "There is no RAM to guard at GPA {}", *bad);
  }
  const auto in = [](const std::set<Gpa>& all, const GpaRange& range) {
    return std::vector<Gpa>(all.lower_bound(range.base()), all.lower_bound(range.end()));
  };
  for (std::size_t i = 0; i < memory_.regions().size(); ++i) {
    const GpaRange& range = memory_.regions()[i].range();
    if (in(pages, range) != in(guarded_, range) || in(hidden, range) != in(hidden_, range)) {
      VMM_TRY(cut(i, pages, hidden));
    }
  }
  guarded_ = pages;
  hidden_ = hidden;
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

#include "vmm/interpreter/tlb.h"

#include <algorithm>
#include <cstring>

#include "vmm/x86/registers.h"

namespace vmm::interpreter {

void Tlb::set_context(const PagingContext& context) {
  const bool same = context.cr0 == context_.cr0 && context.cr3 == context_.cr3 &&
                    context.cr4 == context_.cr4 && context.efer == context_.efer &&
                    context.pkru == context_.pkru;
  context_ = context;
  if (!same) forget();
}

void Tlb::forget() noexcept {
  key_ += kGeneration;
  if ((key_ & ~kOffset) == 0) return;
  // The count has run into the address: begin anew.
  key_ &= kAcBit;
  for (auto& use : entries_) use.fill(Entry{});
}

PageWalk Tlb::walk(Use use, std::uint64_t address) const noexcept {
  PagingContext context = context_;
  context.cpl = 0;
  context.rflags = (key_ & kAcBit) != 0 ? x86::kFlagAc : 0;
  const AccessKind kind = use == Use::kRead    ? AccessKind::kRead
                          : use == Use::kWrite ? AccessKind::kWrite
                                               : AccessKind::kFetch;
  return walk_pages(memory_, context, Gva(address), kind, WalkMarks::kAccessedAndDirty);
}

// What PKRU says of a user's page (SDM volume 3, 4.6.2) only KVM knows; key 0 is every page's that
// has none.
bool Tlb::has_key(const PageWalk& found) const noexcept {
  constexpr unsigned kKey = 59;
  return (context_.cr4 & x86::kCr4Pke) != 0 && found.user && found.depth != 0 &&
         (found.path().back().value >> kKey & 0xf) != 0;
}

bool Tlb::fill(Use use, std::uint64_t address) noexcept {
  const PageWalk found = walk(use, address);
  miss_ = {.fault = found.outcome == WalkOutcome::kPageFault && !found.table_outside_ram,
           .address = address,
           .error_code = found.error_code};
  if (!found.mapped() || has_key(found)) return false;
  const GuestRegion* const region = memory_.find(found.gpa);
  if (region == nullptr) {
    miss_.device = use != Use::kFetch;
    miss_.gpa = found.gpa;
    return false;
  }
  if (region->kind() != RegionKind::kRam) {
    miss_.guarded = use != Use::kFetch;
    return false;
  }
  const std::uint64_t offset = (found.gpa.value - region->range().base().value) & ~kOffset;
  if (use == Use::kWrite) region->mark_written(offset, kPage);
  TableMap::Mark* const mark = tables_.mark(found.gpa);
  if (mark == nullptr) return false;
  entry(use, address) = {tag(address), region->hva() + offset, mark};
  return true;
}

std::byte* Tlb::find_slow(Use use, std::uint64_t address, std::size_t size) noexcept {
  miss_ = {};
  if (crosses(address, size) || !fill(use, address)) return nullptr;
  return entry(use, address).page + (address & kOffset);
}

std::byte* Tlb::write_slow(std::uint64_t address, std::size_t size) noexcept {
  table_ = {};
  std::byte* const at = find_slow(Use::kWrite, address, size);
  if (at == nullptr) return nullptr;
  const Entry& e = entry(Use::kWrite, address);
  return e.mark->load(std::memory_order_acquire) == 0 ? at : on_table(e, address);
}

bool Tlb::find_piece(Use use, std::uint64_t address, std::size_t size, Piece& piece) noexcept {
  table_ = {};
  piece.at = use == Use::kWrite ? write(address, size) : find(use, address, size);
  if (piece.at != nullptr) return true;
  if (table_.at != nullptr || !miss_.guarded) return false;
  const PageWalk found = walk(use, address);
  // A table in plugged memory is KVM's to write.
  const TableMap::Mark* const mark = tables_.mark(found.gpa);
  if (!found.mapped() || (use == Use::kWrite && mark != nullptr && mark->load() != 0)) return false;
  piece.gpa = found.gpa;
  return true;
}

bool Tlb::copy_in(std::uint64_t from, std::span<std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const std::size_t n = std::min<std::size_t>(bytes.size(), kPage - (from & kOffset));
    Piece piece;
    if (!find_piece(Use::kRead, from, n, piece)) return false;
    if (piece.at != nullptr) {
      std::memcpy(bytes.data(), piece.at, n);
    } else if (!memory_.read(piece.gpa, bytes.first(n))) {
      return false;
    }
    bytes = bytes.subspan(n);
    from += n;
  }
  return true;
}

bool Tlb::copy_out(std::uint64_t to, std::span<const std::byte> bytes) noexcept {
  // Two pages at most, both looked at before one is written.
  const std::size_t first = std::min<std::size_t>(bytes.size(), kPage - (to & kOffset));
  Piece a, b;
  if (!find_piece(Use::kWrite, to, first, a)) return false;
  const auto rest = bytes.subspan(first);
  if (!rest.empty() && !find_piece(Use::kWrite, to + first, rest.size(), b)) return false;
  const auto put = [this](const Piece& piece, std::span<const std::byte> part) {
    if (piece.at == nullptr) return memory_.write(piece.gpa, part).has_value();
    std::memcpy(piece.at, part.data(), part.size());
    return true;
  };
  return put(a, bytes.first(first)) && (rest.empty() || put(b, rest));
}

}  // namespace vmm::interpreter

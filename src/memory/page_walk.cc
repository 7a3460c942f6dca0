#include "memory/page_walk.h"

#include <algorithm>

namespace vmm {
namespace {

// SDM volume 3, 2.5 and 2.2.1.
constexpr std::uint64_t kCr0Wp = 1ULL << 16;
constexpr std::uint64_t kCr0Pg = 1ULL << 31;
constexpr std::uint64_t kCr4Pse = 1ULL << 4;
constexpr std::uint64_t kCr4Pae = 1ULL << 5;
constexpr std::uint64_t kCr4La57 = 1ULL << 12;
constexpr std::uint64_t kCr4Smep = 1ULL << 20;
constexpr std::uint64_t kCr4Smap = 1ULL << 21;
constexpr std::uint64_t kCr4Pke = 1ULL << 22;
constexpr std::uint64_t kEferLma = 1ULL << 10;
constexpr std::uint64_t kEferNxe = 1ULL << 11;
constexpr std::uint64_t kFlagAc = 1ULL << 18;

constexpr std::uint64_t kPageSize = 4096;

constexpr std::uint64_t bits(unsigned high, unsigned low) noexcept {
  return ((2ULL << (high - low)) - 1) << low;
}

enum class Mode : std::uint8_t { kOff, k32Bit, kPae, k4Level, k5Level };

Mode mode_of(const PagingContext& c) noexcept {
  if ((c.cr0 & kCr0Pg) == 0) return Mode::kOff;
  if ((c.cr4 & kCr4Pae) == 0) return Mode::k32Bit;
  if ((c.efer & kEferLma) == 0) return Mode::kPae;
  return (c.cr4 & kCr4La57) != 0 ? Mode::k5Level : Mode::k4Level;
}

bool is_canonical(std::uint64_t address, unsigned width) noexcept {
  const std::uint64_t upper = address >> (width - 1);
  return upper == 0 || upper == bits(63 - (width - 1), 0);
}

// The walk in progress: the rules of one paging mode and what the path permits so far.
class Walker {
 public:
  Walker(const GuestMemory& memory, const PagingContext& context, Gva address, AccessKind access)
      : memory_(memory), context_(context), access_(access), mode_(mode_of(context)) {
    walk_.address = address;
    linear_ = mode_ == Mode::k4Level || mode_ == Mode::k5Level ? address.value
                                                               : address.value & bits(31, 0);
  }

  PageWalk run() {
    switch (mode_) {
      case Mode::kOff:
        walk_.writable = walk_.user = walk_.executable = true;
        walk_.page_size = kPageSize;
        walk_.gpa = Gpa(linear_);
        return walk_;
      case Mode::k32Bit:
        return descend(2, context_.cr3 & bits(31, 12));
      case Mode::kPae:
        return descend(3, context_.cr3 & bits(31, 5));
      case Mode::k4Level:
        if (!is_canonical(linear_, 48)) return non_canonical();
        return descend(4, context_.cr3 & bits(51, 12));
      case Mode::k5Level:
        if (!is_canonical(linear_, 57)) return non_canonical();
        return descend(5, context_.cr3 & bits(51, 12));
    }
    return non_canonical();
  }

 private:
  PageWalk non_canonical() {
    walk_.outcome = WalkOutcome::kNonCanonical;
    return walk_;
  }

  PageWalk fault(std::uint32_t why) {
    walk_.outcome = WalkOutcome::kPageFault;
    walk_.error_code = why;
    if (access_ == AccessKind::kWrite) walk_.error_code |= kFaultWrite;
    if (user_mode()) walk_.error_code |= kFaultUser;
    // SDM volume 3, 4.7: I/D is only reported when something could forbid a fetch.
    if (access_ == AccessKind::kFetch &&
        ((context_.cr4 & kCr4Smep) != 0 || (wide_entries() && no_execute_enabled()))) {
      walk_.error_code |= kFaultFetch;
    }
    return walk_;
  }

  bool user_mode() const noexcept { return context_.cpl == 3 && !context_.implicit_supervisor; }
  bool wide_entries() const noexcept { return mode_ != Mode::k32Bit; }
  bool no_execute_enabled() const noexcept { return (context_.efer & kEferNxe) != 0; }
  unsigned index_bits() const noexcept { return wide_entries() ? 9 : 10; }
  unsigned shift(unsigned level) const noexcept { return 12 + (level - 1) * index_bits(); }
  bool is_pae_pointer(unsigned level) const noexcept { return mode_ == Mode::kPae && level == 3; }

  bool is_leaf(unsigned level, std::uint64_t entry) const noexcept {
    if (level == 1) return true;
    if ((entry & kEntryLarge) == 0) return false;
    if (mode_ == Mode::k32Bit) return (context_.cr4 & kCr4Pse) != 0;
    return level == 2 || (level == 3 && mode_ != Mode::kPae);
  }

  // SDM volume 3, 4.3 to 4.5: the bits that must be 0 in a present entry.
  std::uint64_t reserved_bits(unsigned level, bool leaf) const noexcept {
    if (mode_ == Mode::k32Bit) {
      // PSE-36: bits 20:13 carry address bits 39:32, bit 21 is reserved.
      if (level != 2 || !leaf) return 0;
      std::uint64_t reserved = 1ULL << 21;
      if (context_.physical_bits < 40) reserved |= bits(20, context_.physical_bits - 32U + 13);
      return reserved;
    }
    std::uint64_t reserved = 0;
    if (context_.physical_bits < 52) reserved |= bits(51, context_.physical_bits);
    if (mode_ == Mode::kPae) reserved |= bits(62, 52);
    if (is_pae_pointer(level)) return reserved | kEntryNoExecute | bits(2, 1) | bits(8, 5);
    if (!no_execute_enabled()) reserved |= kEntryNoExecute;
    if (level >= 4) reserved |= kEntryLarge;
    if (leaf && level > 1) reserved |= bits(shift(level) - 1, 13);
    return reserved;
  }

  PageWalk descend(unsigned top, std::uint64_t root) {
    walk_.writable = walk_.user = walk_.executable = true;
    std::uint64_t table = root;
    for (unsigned level = top;; --level) {
      const std::uint64_t index = (linear_ >> shift(level)) & bits(index_bits() - 1, 0);
      // A PAE pointer table has four entries and is 32-byte aligned.
      const std::uint64_t slot = is_pae_pointer(level) ? index & 3 : index;
      const Gpa at(table + slot * (wide_entries() ? 8 : 4));
      std::uint64_t entry = 0;
      if (!load(at, entry)) {
        walk_.table_outside_ram = true;
        return fault(0);
      }
      walk_.steps[walk_.depth++] = {static_cast<std::uint8_t>(level), at, entry};
      if ((entry & kEntryPresent) == 0) return fault(0);
      const bool leaf = is_leaf(level, entry);
      if ((entry & reserved_bits(level, leaf)) != 0) {
        return fault(kFaultPresent | kFaultReserved);
      }
      if (!is_pae_pointer(level)) {
        walk_.writable = walk_.writable && (entry & kEntryWritable) != 0;
        walk_.user = walk_.user && (entry & kEntryUser) != 0;
      }
      if (wide_entries() && (entry & kEntryNoExecute) != 0) walk_.executable = false;
      if (leaf) return arrive(level, entry);
      table = entry & (wide_entries() ? bits(51, 12) : bits(31, 12));
    }
  }

  PageWalk arrive(unsigned level, std::uint64_t entry) {
    walk_.page_size = 1ULL << shift(level);
    std::uint64_t base = entry & bits(51, 12);
    if (mode_ == Mode::k32Bit && level == 2) {
      base = (entry & bits(31, 22)) | ((entry & bits(20, 13)) << (32 - 13));
    }
    walk_.gpa = Gpa((base & ~(walk_.page_size - 1)) | (linear_ & (walk_.page_size - 1)));
    if (!permitted()) return fault(kFaultPresent);
    if (access_ != AccessKind::kFetch && !key_permits(entry)) {
      return fault(kFaultPresent | kFaultProtectionKey);
    }
    return walk_;
  }

  // SDM volume 3, 4.6.1.
  bool permitted() const noexcept {
    const bool user = user_mode();
    if (user && !walk_.user) return false;
    switch (access_) {
      case AccessKind::kFetch:
        if (!walk_.executable) return false;
        return user || !walk_.user || (context_.cr4 & kCr4Smep) == 0;
      case AccessKind::kWrite:
        if (!walk_.writable && (user || (context_.cr0 & kCr0Wp) != 0)) return false;
        return user || smap_permits();
      case AccessKind::kRead:
        return user || smap_permits();
    }
    return false;
  }

  bool smap_permits() const noexcept {
    if (!walk_.user || (context_.cr4 & kCr4Smap) == 0) return true;
    return (context_.rflags & kFlagAc) != 0 && !context_.implicit_supervisor;
  }

  // SDM volume 3, 4.6.2.
  bool key_permits(std::uint64_t leaf_entry) const noexcept {
    if (mode_ != Mode::k4Level && mode_ != Mode::k5Level) return true;
    if ((context_.cr4 & kCr4Pke) == 0 || !walk_.user) return true;
    const auto key = static_cast<unsigned>((leaf_entry >> 59) & 0xf);
    const std::uint32_t rights = (context_.pkru >> (2 * key)) & 3;
    if ((rights & 1) != 0) return false;
    if (access_ != AccessKind::kWrite || (rights & 2) == 0) return true;
    return !user_mode() && (context_.cr0 & kCr0Wp) == 0;
  }

  bool load(Gpa at, std::uint64_t& entry) const {
    if (wide_entries()) {
      const auto value = memory_.load<std::uint64_t>(at);
      if (value) entry = *value;
      return value.has_value();
    }
    const auto value = memory_.load<std::uint32_t>(at);
    if (value) entry = *value;
    return value.has_value();
  }

  const GuestMemory& memory_;
  const PagingContext& context_;
  const AccessKind access_;
  const Mode mode_;
  std::uint64_t linear_ = 0;
  PageWalk walk_;
};

// Sets `marks` in one entry. False when the entry is no longer what the walk saw.
template <typename T>
bool mark(const GuestMemory& memory, PageWalkStep& step, std::uint64_t marks) {
  const auto seen = static_cast<T>(step.value);
  const auto wanted = static_cast<T>(step.value | marks);
  if (seen == wanted) return true;
  T expected = seen;
  const auto swapped = memory.compare_exchange<T>(step.entry, expected, wanted);
  step.value = wanted;
  return swapped && *swapped;
}

// Accessed in every entry of the path, dirty in the last. False when the path changed meanwhile.
bool mark_path(const GuestMemory& memory, const PagingContext& context, AccessKind access,
               PageWalk& walk) {
  const Mode mode = mode_of(context);
  for (std::size_t i = 0; i < walk.depth; ++i) {
    PageWalkStep& step = walk.steps[i];
    if (mode == Mode::kPae && step.level == 3) continue;  // pointer entries have no A bit
    const bool last = i + 1U == walk.depth;
    const std::uint64_t marks =
        kEntryAccessed | (last && access == AccessKind::kWrite ? kEntryDirty : 0);
    const bool same = mode == Mode::k32Bit ? mark<std::uint32_t>(memory, step, marks)
                                           : mark<std::uint64_t>(memory, step, marks);
    if (!same) return false;
  }
  return true;
}

}  // namespace

bool is_canonical_in(const PagingContext& context, Gva address) noexcept {
  if ((context.efer & kEferLma) == 0) return true;
  return is_canonical(address.value, (context.cr4 & kCr4La57) != 0 ? 57 : 48);
}

PageWalk walk_pages(const GuestMemory& memory, const PagingContext& context, Gva address,
                    AccessKind access, WalkMarks marks) {
  // Another CPU may change an entry between our look and our mark: look again. A guest that does so
  // without end gets its translation without the mark.
  constexpr int kTries = 8;
  PageWalk walk;
  for (int i = 0; i < kTries; ++i) {
    walk = Walker(memory, context, address, access).run();
    if (!walk.mapped() || marks == WalkMarks::kNone) break;
    if (mark_path(memory, context, access, walk)) break;
  }
  return walk;
}

VirtualAccess translate_range(const GuestMemory& memory, const PagingContext& context, Gva address,
                              std::uint64_t size, AccessKind access, WalkMarks marks,
                              std::vector<VirtualPiece>& pieces) {
  pieces.clear();
  VirtualAccess result;
  for (std::uint64_t done = 0; done < size;) {
    const Gva at(address.value + done);
    const std::uint64_t n = std::min(size - done, kPageSize - at.value % kPageSize);
    result.walk = walk_pages(memory, context, at, access, marks);
    if (!result.walk.mapped()) {
      result.outcome = VirtualAccess::Outcome::kFault;
      return result;
    }
    pieces.push_back({result.walk.gpa, static_cast<std::uint32_t>(n)});
    done += n;
  }
  return result;
}

namespace {

// Translates all pages and checks that each is RAM.
VirtualAccess translate_to_ram(const GuestMemory& memory, const PagingContext& context, Gva address,
                               std::uint64_t size, AccessKind access, WalkMarks marks,
                               std::vector<VirtualPiece>& pieces) {
  VirtualAccess result = translate_range(memory, context, address, size, access, marks, pieces);
  if (!result) return result;
  std::uint64_t done = 0;
  for (const VirtualPiece& piece : pieces) {
    const auto range = GpaRange::create(piece.gpa, piece.size);
    if (!range || !memory.contains(*range)) {
      result.walk = walk_pages(memory, context, Gva(address.value + done), access);
      result.outcome = VirtualAccess::Outcome::kNotRam;
      return result;
    }
    done += piece.size;
  }
  return result;
}

}  // namespace

VirtualAccess read_virtual(const GuestMemory& memory, const PagingContext& context, Gva from,
                           std::span<std::byte> bytes, AccessKind access, WalkMarks marks) {
  std::vector<VirtualPiece> pieces;
  VirtualAccess result =
      translate_to_ram(memory, context, from, bytes.size(), access, marks, pieces);
  if (!result) return result;
  for (const VirtualPiece& piece : pieces) {
    if (!memory.read(piece.gpa, bytes.first(piece.size))) {
      result.outcome = VirtualAccess::Outcome::kNotRam;
      return result;
    }
    bytes = bytes.subspan(piece.size);
  }
  return result;
}

VirtualAccess write_virtual(const GuestMemory& memory, const PagingContext& context, Gva to,
                            std::span<const std::byte> bytes, WalkMarks marks) {
  std::vector<VirtualPiece> pieces;
  VirtualAccess result =
      translate_to_ram(memory, context, to, bytes.size(), AccessKind::kWrite, marks, pieces);
  if (!result) return result;
  for (const VirtualPiece& piece : pieces) {
    if (!memory.write(piece.gpa, bytes.first(piece.size))) {
      result.outcome = VirtualAccess::Outcome::kNotRam;
      return result;
    }
    bytes = bytes.subspan(piece.size);
  }
  return result;
}

}  // namespace vmm

#include "vmm/completion/data_access.h"

#include <algorithm>
#include <array>

namespace vmm::completion {
namespace {

constexpr std::uint32_t kPageSize = 4096;
constexpr std::uint64_t kFlagVm = 1ULL << 17;

const x86::Segment* segment_of(const x86::SystemRegisters& system, ZydisRegister which) noexcept {
  switch (static_cast<int>(which)) {
    case ZYDIS_REGISTER_ES:
      return &system.es;
    case ZYDIS_REGISTER_CS:
      return &system.cs;
    case ZYDIS_REGISTER_SS:
      return &system.ss;
    case ZYDIS_REGISTER_FS:
      return &system.fs;
    case ZYDIS_REGISTER_GS:
      return &system.gs;
    default:
      return &system.ds;
  }
}

// Type, limit and expansion direction of a segment outside of 64-bit mode.
bool segment_permits(const Context& context, const x86::Segment& segment, std::uint64_t offset,
                     std::uint32_t size, Direction direction) noexcept {
  const bool writes = direction != Direction::kRead;
  const bool typed = context.protected_mode() && (context.registers.rflags & kFlagVm) == 0;
  const bool is_code = (segment.type & 8) != 0;
  if (typed) {
    if (segment.unusable || !segment.present) return false;
    const bool writable = !is_code && (segment.type & 2) != 0;
    const bool readable = !is_code || (segment.type & 2) != 0;
    if (writes ? !writable : !readable) return false;
  }
  const std::uint64_t last = offset + size - 1;
  const bool expand_down = typed && !is_code && (segment.type & 4) != 0;
  if (!expand_down) return last <= segment.limit;
  return offset > segment.limit && last <= (segment.default_big ? 0xffffffffULL : 0xffffULL);
}

std::uint64_t width_mask(unsigned width) noexcept {
  return width >= 64 ? ~0ULL : (1ULL << width) - 1;
}

Step address_fault(bool stack) {
  return Step::fault(stack ? x86::Vector::kStackFault : x86::Vector::kGeneralProtection, 0);
}

}  // namespace

Step resolve_register(const Context& context, ZydisRegister segment_name, std::uint64_t offset,
                      std::uint32_t size, Direction direction, LinearOperand& linear) {
  linear.offset = offset;
  linear.size = size;
  linear.stack_segment = segment_name == ZYDIS_REGISTER_SS;
  const x86::Segment& segment = *segment_of(context.system, segment_name);
  if (context.system.code_is_64bit()) {
    const bool based = segment_name == ZYDIS_REGISTER_FS || segment_name == ZYDIS_REGISTER_GS;
    linear.address = offset + (based ? segment.base : 0);
    return Step::ok();  // the page walk judges whether it is canonical
  }
  if (!segment_permits(context, segment, offset, size, direction)) {
    return address_fault(linear.stack_segment);
  }
  linear.address = (segment.base + offset) & 0xffffffff;
  return Step::ok();
}

Step resolve_operand(const Context& context, const Instruction& instruction,
                     const ZydisDecodedOperand& operand, std::uint32_t size, Direction direction,
                     LinearOperand& linear) {
  const auto& mem = operand.mem;
  std::uint64_t offset = mem.disp.has_displacement ? static_cast<std::uint64_t>(mem.disp.value) : 0;
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    offset += context.registers.rip + instruction.length();
  } else if (mem.base != ZYDIS_REGISTER_NONE) {
    offset += read_gpr(context.registers, mem.base);
  }
  if (mem.index != ZYDIS_REGISTER_NONE) {
    offset += read_gpr(context.registers, mem.index) * mem.scale;
  }
  offset &= width_mask(instruction.info().address_width);
  return resolve_register(context, mem.segment, offset, size, direction, linear);
}

Result<Step> DataAccess::translate(const Context& context, const LinearOperand& linear,
                                   Direction direction, DataAccess& access,
                                   std::span<const std::uint8_t> touched) {
  if (linear.size > kMaxSize) return Step::cannot("the operand is larger than any instruction's");
  access.linear_ = linear;
  access.touched_.assign(touched.begin(), touched.end());
  const AccessKind kind = direction == Direction::kRead ? AccessKind::kRead : AccessKind::kWrite;
  const bool is_64bit = context.system.code_is_64bit();
  for (std::uint32_t done = 0; done < linear.size;) {
    std::uint64_t at = linear.address + done;
    if (!is_64bit) at &= 0xffffffff;
    const auto n = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(linear.size - done, kPageSize - at % kPageSize));
    const auto part = touched.empty() ? touched : touched.subspan(done, n);
    if (!touched.empty() && std::all_of(part.begin(), part.end(), [](auto t) { return t == 0; })) {
      done += n;
      continue;
    }
    // The address that a fault reports is that of the first byte touched in the page.
    std::uint64_t skipped = 0;
    while (skipped < part.size() && part[skipped] == 0) ++skipped;
    const PageWalk walk = walk_pages(context.memory(), context.paging, Gva(at + skipped), kind,
                                     WalkMarks::kAccessedAndDirty);
    if (walk.outcome == WalkOutcome::kNonCanonical) return address_fault(linear.stack_segment);
    if (!walk.mapped()) return Step::page_fault(at + skipped, walk.error_code);
    const Gpa gpa(walk.gpa.value - skipped);
    const auto range = GpaRange::create(gpa, n);
    const bool ram = range && context.memory().reaches(*range);
    // A file's memory is copied, not touched in place: no atomic access, as with a device's.
    access.all_ram_ = access.all_ram_ && ram && context.memory().contains(*range);
    access.pieces_.push_back({gpa, done, n, ram});
    done += n;
  }
  return Step::ok();
}

std::optional<Gpa> DataAccess::contiguous_ram() const noexcept {
  if (!all_ram_ || pieces_.size() != 1) return std::nullopt;
  return pieces_[0].gpa;
}

template <typename Fn>
Result<void> DataAccess::for_each_run(Fn&& fn) const {
  for (const Piece& piece : pieces_) {
    if (touched_.empty()) {
      VMM_TRY(fn(piece));
      continue;
    }
    for (std::uint32_t i = 0; i < piece.size;) {
      std::uint32_t n = 0;
      while (i + n < piece.size && touched_[piece.offset + i + n] != 0) ++n;
      if (n != 0) VMM_TRY(fn(Piece{Gpa(piece.gpa.value + i), piece.offset + i, n, piece.ram}));
      i += n + 1;
    }
  }
  return {};
}

namespace {

// Calls fn(gpa, offset, size) for naturally aligned accesses of at most eight bytes, in address
// order.
template <typename Fn>
void for_each_bus_access(Gpa gpa, std::uint32_t size, Fn&& fn) {
  for (std::uint32_t done = 0; done < size;) {
    std::uint32_t width = 8;
    while ((gpa.value + done) % width != 0 || width > size - done) width /= 2;
    fn(Gpa(gpa.value + done), done, width);
    done += width;
  }
}

}  // namespace

namespace {

// Memory that cannot be written, or was unplugged a moment ago, is as if nothing were there.
Result<bool> was_there(const Result<void>& copied) {
  if (copied) return true;
  if (copied.error().code() == ErrorCode::kOutOfRange) return false;
  return tl::unexpected<Error>(copied.error());
}

}  // namespace

Result<void> DataAccess::gather(const Context& context, std::span<std::byte> to) const {
  return for_each_run([&](const Piece& piece) -> Result<void> {
    const auto part = to.subspan(piece.offset, piece.size);
    if (piece.ram && VMM_TRY(was_there(context.memory().read(piece.gpa, part)))) {
      context.bus().saw_read(piece.gpa, piece.size);
      return {};
    }
    std::fill(part.begin(), part.end(), std::byte{0xff});
    if (piece.ram) return {};
    for_each_bus_access(piece.gpa, piece.size, [&](Gpa at, std::uint32_t from, std::uint32_t n) {
      context.bus().read(at, part.subspan(from, n));
    });
    return {};
  });
}

Result<void> DataAccess::scatter(const Context& context, std::span<const std::byte> from) const {
  return for_each_run([&](const Piece& piece) -> Result<void> {
    const auto part = from.subspan(piece.offset, piece.size);
    if (piece.ram) {
      VMM_TRY(was_there(context.memory().write(piece.gpa, part)));
      return {};
    }
    for_each_bus_access(piece.gpa, piece.size, [&](Gpa at, std::uint32_t offset, std::uint32_t n) {
      context.bus().write(at, part.subspan(offset, n));
    });
    return {};
  });
}

}  // namespace vmm::completion

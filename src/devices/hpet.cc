#include "devices/hpet.h"

#include <algorithm>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

using std::chrono::nanoseconds;

// Registers (specification, table 2).
constexpr std::uint64_t kCapabilities = 0x000;
constexpr std::uint64_t kConfig = 0x010;
constexpr std::uint64_t kStatus = 0x020;
constexpr std::uint64_t kMainCounter = 0x0f0;
constexpr std::uint64_t kFirstComparator = 0x100;
constexpr std::uint64_t kComparatorSize = 0x20;
constexpr std::uint64_t kTimerConfig = 0x00, kTimerValue = 0x08;  // in a comparator's block

constexpr std::uint64_t kFemtosecondsPerNanosecond = 1'000'000;

// GEN_CONF
constexpr std::uint64_t kEnable = 1 << 0;
constexpr std::uint64_t kLegacy = 1 << 1;

// Tn_CONFIG
constexpr std::uint64_t kLevel = 1 << 1;
constexpr std::uint64_t kInterrupts = 1 << 2;
constexpr std::uint64_t kPeriodic = 1 << 3;
constexpr std::uint64_t kSetValue = 1 << 6;
constexpr std::uint64_t k32Bit = 1 << 8;
constexpr unsigned kRouteShift = 9;
constexpr std::uint64_t kRouteMask = 0x1f << kRouteShift;
constexpr std::uint64_t kWritable =
    kLevel | kInterrupts | kPeriodic | kSetValue | k32Bit | kRouteMask;
// All three are periodic and have 64 bits.
constexpr std::uint64_t kTimerCapabilities =
    ((1ULL << Hpet::kRoutes) - 1) << (32 + Hpet::kFirstRoute) | 1 << 5 | 1 << 4;

// Ticks of the clock that still are nanoseconds.
constexpr std::uint64_t kLastTick =
    static_cast<std::uint64_t>(nanoseconds::max().count() / Hpet::kPeriod.count());

std::uint64_t to_ticks(nanoseconds time) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(time / Hpet::kPeriod, 0));
}

bool is_route(std::uint64_t route) {
  return route >= Hpet::kFirstRoute && route < Hpet::kFirstRoute + Hpet::kRoutes;
}
std::uint64_t route_of(const Hpet::Comparator& timer) {
  return (timer.config & kRouteMask) >> kRouteShift;
}
std::uint64_t clipped(const Hpet::Comparator& timer, std::uint64_t value) {
  return (timer.config & k32Bit) != 0 ? value & 0xffff'ffff : value;
}

// From `counter` to the next match; one that stands there already comes after a whole turn.
std::uint64_t ticks_to_match(const Hpet::Comparator& timer, std::uint64_t counter) {
  const std::uint64_t distance = clipped(timer, timer.value - counter);
  if (distance != 0) return distance;
  return (timer.config & k32Bit) != 0 ? 1ULL << 32 : ~0ULL;
}

std::uint64_t merged(std::uint64_t old, std::uint64_t value, std::uint64_t mask) {
  return (old & ~mask) | value;
}

}  // namespace

bool Hpet::State::replaces() const { return (config & (kEnable | kLegacy)) == (kEnable | kLegacy); }

Result<void> Hpet::State::validate() const {
  bool good =
      (config & ~(kEnable | kLegacy)) == 0 && status >> kComparators == 0 && seen <= kLastTick;
  for (const Comparator& timer : comparators) {
    const std::uint64_t route = route_of(timer);
    good = good && (timer.config & ~kWritable) == 0 && (route == 0 || is_route(route)) &&
           timer.value == clipped(timer, timer.value) &&
           timer.period == clipped(timer, timer.period) && timer.not_before <= 2 * kLastTick;
  }
  if (good) return {};
  return fail(ErrorCode::kBadState, "An HPET is in a state that does not exist");
}

Hpet::Hpet(std::string id, Ports ports)
    : ports_(std::move(ports)), id_(std::move(id)), min_interval_(to_ticks(ports_.min_interval)) {}

std::uint64_t Hpet::now() const {
  const std::uint64_t ticks = ports_.clock == nullptr ? 0 : to_ticks(ports_.clock->now());
  return std::max(ticks, s_.seen);
}

void Hpet::catch_up() {
  const std::uint64_t t = now();
  const std::uint64_t elapsed = t - s_.seen;
  s_.seen = t;
  if ((s_.config & kEnable) == 0) return;
  for (Comparator& timer : s_.comparators) {
    const std::uint64_t first = ticks_to_match(timer, s_.counter);
    if (elapsed < first) continue;
    if ((timer.config & (kLevel | kInterrupts)) != 0) timer.owed = true;
    if ((timer.config & kPeriodic) != 0 && timer.period != 0) {
      const std::uint64_t matches = 1 + (elapsed - first) / timer.period;
      timer.value = clipped(timer, timer.value + matches * timer.period);
    }
  }
  s_.counter += elapsed;
}

// The line that a comparator's interrupt takes; nullptr while it has none.
IrqLine* Hpet::line_of(std::size_t index) {
  Lines& lines = ports_.lines[index];
  if (index < kLegacyIrqs.size() && (s_.config & kLegacy) != 0) return &lines.legacy;
  const std::uint64_t route = route_of(s_.comparators[index]);
  return is_route(route) ? &lines.routed[static_cast<std::size_t>(route - kFirstRoute)] : nullptr;
}

bool Hpet::level_pending(std::size_t index) const {
  constexpr std::uint64_t kBoth = kLevel | kInterrupts;
  return (s_.config & kEnable) != 0 && (s_.comparators[index].config & kBoth) == kBoth &&
         (s_.status >> index & 1) != 0;
}

void Hpet::deliver(std::size_t index) {
  Comparator& timer = s_.comparators[index];
  timer.owed = false;
  timer.not_before = s_.seen + min_interval_;
  if ((timer.config & kLevel) != 0) {
    s_.status |= 1ULL << index;
  } else if (IrqLine* const line = line_of(index); line != nullptr) {
    line->pulse();
  }
}

void Hpet::drive_levels() {
  const bool replaces = s_.replaces();
  for (IrqSwitch* const way : ports_.replaced) {
    if (way != nullptr) way->set_open(!replaces);
  }
  for (std::size_t i = 0; i < kComparators; ++i) {
    IrqLine* const line = level_pending(i) ? line_of(i) : nullptr;
    if (line == driven_[i]) continue;
    if (driven_[i] != nullptr) driven_[i]->set_level(false);
    if (line != nullptr) line->set_level(true);
    driven_[i] = line;
  }
}

void Hpet::settle() {
  for (std::size_t i = 0; i < kComparators; ++i) {
    Comparator& timer = s_.comparators[i];
    if ((s_.config & kEnable) == 0) timer.owed = false;
    if (timer.owed && s_.seen >= timer.not_before) deliver(i);
  }
  drive_levels();
}

std::optional<nanoseconds> Hpet::next_event() const {
  if ((s_.config & kEnable) == 0) return std::nullopt;
  std::uint64_t next = ~0ULL;
  for (std::size_t i = 0; i < kComparators; ++i) {
    const Comparator& timer = s_.comparators[i];
    const bool told = (timer.config & kLevel) != 0 && (s_.status >> i & 1) != 0;
    if ((timer.config & kInterrupts) == 0 || told) continue;
    const std::uint64_t distance = timer.owed ? 0 : ticks_to_match(timer, s_.counter);
    if (distance > kLastTick - s_.seen) continue;
    next = std::min(next, std::max(s_.seen + distance, timer.not_before));
  }
  if (next > kLastTick) return std::nullopt;
  return kPeriod * static_cast<std::int64_t>(next);
}

void Hpet::rearm() {
  const auto next = next_event();
  if (next == announced_) return;
  announced_ = next;
  if (ports_.on_rearm) ports_.on_rearm();
}

void Hpet::on_time() {
  catch_up();
  settle();
  announced_ = next_event();  // whoever called this asks next
}

std::uint64_t Hpet::read_register(std::uint64_t offset) const {
  switch (offset) {
    case kCapabilities:
      return static_cast<std::uint64_t>(kPeriod.count()) * kFemtosecondsPerNanosecond << 32 |
             kBlockId;
    case kConfig:
      return s_.config;
    case kStatus:
      return s_.status;
    case kMainCounter:
      return s_.counter;
    default:
      break;
  }
  if (offset < kFirstComparator) return 0;
  const std::uint64_t index = (offset - kFirstComparator) / kComparatorSize;
  if (index >= kComparators) return 0;
  const Comparator& timer = s_.comparators[static_cast<std::size_t>(index)];
  switch ((offset - kFirstComparator) % kComparatorSize) {
    case kTimerConfig:
      return timer.config | kTimerCapabilities;
    case kTimerValue:
      return timer.value;
    default:
      return 0;
  }
}

// With VAL_SET, or in one-shot mode, the write gives the next match. In periodic mode every write
// gives the period, too (2.3.9.2.2).
void Hpet::write_comparator(Comparator& timer, std::uint64_t value, std::uint64_t mask) {
  const bool periodic = (timer.config & kPeriodic) != 0;
  if (!periodic || (timer.config & kSetValue) != 0) {
    timer.value = clipped(timer, merged(timer.value, value, mask));
  }
  if (periodic) timer.period = clipped(timer, merged(timer.period, value, mask));
  timer.config &= ~kSetValue;
}

void Hpet::write_register(std::uint64_t offset, std::uint64_t value, std::uint64_t mask) {
  switch (offset) {
    case kConfig:
      s_.config = merged(s_.config, value, mask) & (kEnable | kLegacy);
      return;
    case kStatus:
      s_.status &= ~value;
      return;
    case kMainCounter:
      s_.counter = merged(s_.counter, value, mask);
      return;
    default:
      break;
  }
  if (offset < kFirstComparator) return;
  const std::uint64_t index = (offset - kFirstComparator) / kComparatorSize;
  if (index >= kComparators) return;
  Comparator& timer = s_.comparators[static_cast<std::size_t>(index)];
  const std::uint64_t reg = (offset - kFirstComparator) % kComparatorSize;
  if (reg == kTimerValue) write_comparator(timer, value, mask);
  if (reg != kTimerConfig) return;
  timer.config = merged(timer.config, value, mask) & kWritable;
  if (!is_route(route_of(timer))) timer.config &= ~kRouteMask;
  timer.value = clipped(timer, timer.value);
  timer.period = clipped(timer, timer.period);
  if ((timer.config & (kLevel | kInterrupts)) == 0) timer.owed = false;
}

void Hpet::read(const IoAccess& access, std::span<std::byte> data) {
  const std::uint64_t shift = access.offset % 8;
  if (shift + data.size() > 8) return;  // across registers: all ones
  catch_up();
  settle();
  store_le(data, read_register(access.offset - shift) >> (8 * shift));
  rearm();
}

void Hpet::write(const IoAccess& access, std::span<const std::byte> data) {
  const std::uint64_t shift = access.offset % 8;
  if (data.empty() || shift + data.size() > 8) return;
  catch_up();
  settle();
  const std::uint64_t mask = ~0ULL >> (64 - 8 * data.size()) << (8 * shift);
  write_register(access.offset - shift, load_le(data) << (8 * shift), mask);
  settle();
  rearm();
}

void Hpet::reset() {
  s_ = State{};
  settle();
  rearm();
}

void Hpet::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Hpet::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  drive_levels();
  rearm();
  return {};
}

}  // namespace vmm

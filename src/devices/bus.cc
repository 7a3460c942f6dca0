#include "devices/bus.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/checked.h"
#include "base/le.h"

namespace vmm {

namespace detail {

struct BusEntry {
  Window window;
  std::uint64_t last;  // address of the window's last byte: unlike an end, it always exists
  DeviceRef device;

  bool contains(std::uint64_t address) const noexcept {
    return address >= window.base && address <= last;
  }
};

// Immutable once published.
struct BusMap {
  std::vector<BusEntry> entries;  // by base; no two overlap
  BusTraceHook trace;
};

}  // namespace detail

namespace {

using detail::BusEntry;
using detail::BusMap;

constexpr std::size_t kLongestPart = 8;
constexpr std::uint64_t kLastPort = 0xffff;
constexpr std::uint64_t kLastGpa = std::numeric_limits<std::uint64_t>::max();

// The first entry that ends at or after `address`.
[[gnu::hot]] std::size_t first_not_below(const BusMap& map, std::uint64_t address) noexcept {
  const auto found =
      std::lower_bound(map.entries.begin(), map.entries.end(), address,
                       [](const BusEntry& entry, std::uint64_t a) { return entry.last < a; });
  return static_cast<std::size_t>(found - map.entries.begin());
}

// How many of `wanted` bytes lie in [address, last].
std::size_t clip(std::size_t wanted, std::uint64_t address, std::uint64_t last) noexcept {
  const std::uint64_t room_less_one = last - address;
  return room_less_one < wanted
             ? static_cast<std::size_t>(std::min<std::uint64_t>(wanted, room_less_one + 1))
             : wanted;
}

auto find_base(const std::vector<BusEntry>& entries, std::uint64_t base) noexcept {
  return std::find_if(entries.begin(), entries.end(),
                      [base](const BusEntry& entry) { return entry.window.base == base; });
}

void call(Device& device, const IoAccess& access, std::span<std::byte> data) {
  device.read(access, data);
}
void call(Device& device, const IoAccess& access, std::span<const std::byte> data) {
  device.write(access, data);
}

void add_entry(BusMap& map, const Window& window, DeviceRef device) {
  BusEntry entry{window, window.base + (window.size - 1), std::move(device)};
  const auto at = static_cast<std::ptrdiff_t>(first_not_below(map, window.base));
  map.entries.insert(map.entries.begin() + at, std::move(entry));
}

}  // namespace

[[gnu::hot]] void all_ones(std::span<std::byte> data) noexcept {
  if (data.size() <= kLongestPart) {  // one store, where fill() is a call
    store_le(data, ~std::uint64_t{0});
  } else {
    std::fill(data.begin(), data.end(), std::byte{0xff});
  }
}

Bus::Bus(BusKind kind)
    : kind_(kind),
      last_address_(kind == BusKind::kPio ? kLastPort : kLastGpa),
      map_(std::make_shared<BusMap>()),
      published_(map_.get()) {}

Bus::~Bus() = default;

// The cache holds a reference to its map, so that map's address cannot have been used again: equal
// pointers mean the same map.
[[gnu::hot]] const BusMap& Bus::current(BusCache& cache) const {
  if (cache.map_.get() != published_.load(std::memory_order_acquire)) {
    std::shared_ptr<const BusMap> fresh;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      fresh = map_;
    }
    // The old map, and with it perhaps a removed device, goes after the lock was given back.
    cache.map_.swap(fresh);
    cache.hit_ = 0;
  }
  return *cache.map_;
}

template <typename Byte>
[[gnu::hot]] bool Bus::access(BusCache& cache, std::uint64_t address, std::span<Byte> data) {
  constexpr bool kIsWrite = std::is_const_v<Byte>;
  bool all_claimed = true;
  while (!data.empty()) {
    const BusMap& map = current(cache);
    const auto started =
        map.trace ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point{};

    std::size_t index = cache.hit_;
    if (index >= map.entries.size() || !map.entries[index].contains(address)) {
      index = first_not_below(map, address);
    }
    const BusEntry* entry = index < map.entries.size() ? &map.entries[index] : nullptr;
    const bool hit = entry != nullptr && entry->contains(address);
    // Without a hit, the part reaches up to the next window. Past the last port there is none.
    const std::uint64_t last =
        hit ? entry->last : (entry != nullptr ? entry->window.base - 1 : kLastGpa);
    const std::size_t width = clip(std::min(data.size(), kLongestPart), address, last);
    const std::span<Byte> part = data.first(width);

    bool claimed = false;
    if (hit && entry->window.widths.accepts(width)) {
      cache.hit_ = index;
      DeviceRef::Cell& cell = *entry->device.cell_;
      std::lock_guard<std::mutex> guard(cell.mutex);
      // Between the lookup and the lock the window may have gone: then the access is a new one.
      if (published_.load(std::memory_order_acquire) != &map) continue;
      call(*cell.device,
           IoAccess{.offset = entry->window.offset + (address - entry->window.base),
                    .address = address,
                    .vcpu = cache.vcpu_},
           part);
      claimed = true;
    } else if (hit) {
      (kIsWrite ? refused_writes_ : refused_reads_).fetch_add(1, std::memory_order_relaxed);
    } else {
      (kIsWrite ? unclaimed_writes_ : unclaimed_reads_).fetch_add(1, std::memory_order_relaxed);
    }
    all_claimed = all_claimed && claimed;
    if (map.trace) {
      map.trace({.is_write = kIsWrite,
                 .address = address,
                 .width = width,
                 .value = load_le(part),
                 .claimed = claimed,
                 .device = claimed ? entry->device.id() : std::string_view{},
                 .duration = std::chrono::steady_clock::now() - started});
    }
    data = data.subspan(width);
    const auto next = checked_add<std::uint64_t>(address, width);
    if (!next && !data.empty()) {  // past 2^64 - 1: nothing lives there, and it is not address 0
      (kIsWrite ? unclaimed_writes_ : unclaimed_reads_).fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    address = next.value_or(0);
  }
  return all_claimed;
}

[[gnu::hot]] bool Bus::read(BusCache& cache, std::uint64_t address, std::span<std::byte> data) {
  all_ones(data);
  return access(cache, address, data);
}

[[gnu::hot]] bool Bus::write(BusCache& cache, std::uint64_t address,
                             std::span<const std::byte> data) {
  return access(cache, address, data);
}

Result<void> Bus::check(const BusMap& map, const Window& window) const {
  if (window.size == 0) {
    return fail(ErrorCode::kBadConfig, "The window at {:#x} is empty", window.base);
  }
  const auto last = checked_add<std::uint64_t>(window.base, window.size - 1);
  if (!last || *last > last_address_) {
    return fail(ErrorCode::kBadConfig, "The window at {:#x}, {:#x} bytes, passes the end of the {}",
                window.base, window.size,
                kind_ == BusKind::kPio ? "ports" : "guest-physical addresses");
  }
  if (!checked_add<std::uint64_t>(window.offset, window.size - 1)) {
    return fail(ErrorCode::kBadConfig, "The window at {:#x}: device offset {:#x} is too large",
                window.base, window.offset);
  }
  const std::size_t index = first_not_below(map, window.base);
  if (index < map.entries.size() && map.entries[index].window.base <= *last) {
    const BusEntry& other = map.entries[index];
    return fail(ErrorCode::kBadConfig, "The window {:#x}-{:#x} overlaps {:#x}-{:#x} of '{}'",
                window.base, *last, other.window.base, other.last, other.device.id());
  }
  return {};
}

// Swaps the map in, then lets go of the lock before the old map, and perhaps a device, is freed.
void Bus::publish(std::unique_lock<std::mutex> held, std::shared_ptr<BusMap> next) {
  std::shared_ptr<const BusMap> old = std::exchange(map_, std::move(next));
  published_.store(map_.get(), std::memory_order_release);
  held.unlock();
}

Result<void> Bus::insert(const Window& window, DeviceRef device) {
  std::unique_lock<std::mutex> held(mutex_);
  VMM_TRY(check(*map_, window));
  auto next = std::make_shared<BusMap>(*map_);
  add_entry(*next, window, std::move(device));
  publish(std::move(held), std::move(next));
  return {};
}

Result<void> Bus::remove(std::uint64_t base) {
  std::unique_lock<std::mutex> held(mutex_);
  auto next = std::make_shared<BusMap>(*map_);
  const auto found = find_base(next->entries, base);
  if (found == next->entries.end()) {
    return fail(ErrorCode::kOutOfRange, "No window starts at {:#x}", base);
  }
  next->entries.erase(found);
  publish(std::move(held), std::move(next));
  return {};
}

Result<void> Bus::move(std::uint64_t from, std::uint64_t to) {
  std::unique_lock<std::mutex> held(mutex_);
  auto next = std::make_shared<BusMap>(*map_);
  const auto found = find_base(next->entries, from);
  if (found == next->entries.end()) {
    return fail(ErrorCode::kOutOfRange, "No window starts at {:#x}", from);
  }
  Window window = found->window;
  DeviceRef device = found->device;
  next->entries.erase(found);  // the new place may overlap the old one
  window.base = to;
  VMM_TRY(check(*next, window));
  add_entry(*next, window, std::move(device));
  publish(std::move(held), std::move(next));
  return {};
}

void Bus::set_trace(BusTraceHook hook) {
  std::unique_lock<std::mutex> held(mutex_);
  auto next = std::make_shared<BusMap>(*map_);
  next->trace = std::move(hook);
  publish(std::move(held), std::move(next));
}

BusStats Bus::stats() const noexcept {
  return {.unclaimed_reads = unclaimed_reads_.load(std::memory_order_relaxed),
          .unclaimed_writes = unclaimed_writes_.load(std::memory_order_relaxed),
          .refused_reads = refused_reads_.load(std::memory_order_relaxed),
          .refused_writes = refused_writes_.load(std::memory_order_relaxed)};
}

std::string Bus::device_at(std::uint64_t address) const {
  std::lock_guard<std::mutex> guard(mutex_);
  const std::size_t at = first_not_below(*map_, address);
  if (at == map_->entries.size()) return {};
  const BusEntry& entry = map_->entries[at];
  return address < entry.window.base ? std::string() : std::string(entry.device.id());
}

std::vector<Window> Bus::windows() const {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<Window> all;
  for (const BusEntry& entry : map_->entries) all.push_back(entry.window);
  return all;
}

}  // namespace vmm

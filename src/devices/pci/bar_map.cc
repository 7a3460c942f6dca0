#include "devices/pci/bar_map.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"

namespace vmm::pci {

BarMap::BarMap(Bus& bus, std::vector<GpaRange> windows) : bus_(bus), windows_(std::move(windows)) {
  for (const GpaRange& window : windows_) free_.push_back(window.base().value);
}

std::optional<std::uint64_t> BarMap::assign(std::uint64_t size) {
  std::lock_guard<std::mutex> guard(mutex_);
  for (std::size_t i = 0; i < windows_.size(); ++i) {
    const auto rounded = checked_add<std::uint64_t>(free_[i], size - 1);
    if (!rounded) continue;
    const std::uint64_t base = *rounded & ~(size - 1);
    const auto range = GpaRange::create(Gpa(base), size);
    if (!range || !windows_[i].contains(*range)) continue;
    free_[i] = base + size;
    return base;
  }
  return std::nullopt;
}

BarMap::Id BarMap::add(DeviceRef device, const Window& shape, OnMoved on_moved) {
  std::lock_guard<std::mutex> guard(mutex_);
  const auto free = std::find(bars_.begin(), bars_.end(), std::nullopt);
  Bar bar{std::move(device), shape, std::move(on_moved)};
  if (free != bars_.end()) {
    free->emplace(std::move(bar));
    return static_cast<Id>(free - bars_.begin());
  }
  bars_.emplace_back(std::move(bar));
  return bars_.size() - 1;
}

void BarMap::remove(Id id) {
  std::optional<Bar> gone;  // perhaps the last who knows its device: ends without the lock
  std::lock_guard<std::mutex> guard(mutex_);
  if (bars_[id]->decoded) leave(*bars_[id]);
  gone.swap(bars_[id]);
  place_waiting();
}

bool BarMap::passes(const Bar& bar) const {
  if (!bar.wanted) return false;
  const auto range = GpaRange::create(Gpa(*bar.wanted), bar.shape.size);
  return range && std::any_of(windows_.begin(), windows_.end(),
                              [&](const GpaRange& window) { return window.contains(*range); });
}

void BarMap::set_decoded(Bar& bar, std::optional<std::uint64_t> address) {
  bar.decoded = address;
  if (bar.on_moved) bar.on_moved(address);
}

// The bus refuses what overlaps another window; then the BAR is where it was.
bool BarMap::try_place(Bar& bar) {
  if (!passes(bar)) return false;
  Window window = bar.shape;
  window.base = *bar.wanted;
  const bool placed =
      (bar.decoded ? bus_.move(*bar.decoded, window.base) : bus_.insert(window, bar.device))
          .has_value();
  if (placed) set_decoded(bar, bar.wanted);
  return placed;
}

void BarMap::place(Id id, std::optional<std::uint64_t> address) {
  std::lock_guard<std::mutex> guard(mutex_);
  Bar& bar = *bars_[id];
  bar.wanted = address;
  if (bar.decoded == address) return;
  const bool leaves = bar.decoded.has_value();
  if (!try_place(bar) && bar.decoded) leave(bar);
  if (leaves) place_waiting();
}

void BarMap::leave(Bar& bar) {
  (void)bus_.remove(*bar.decoded);
  set_decoded(bar, std::nullopt);
}

void BarMap::place_waiting() {
  for (std::optional<Bar>& other : bars_) {
    if (other && other->wanted && !other->decoded) (void)try_place(*other);
  }
}

std::optional<std::uint64_t> BarMap::decoded(Id id) const {
  std::lock_guard<std::mutex> guard(mutex_);
  return bars_[id]->decoded;
}

}  // namespace vmm::pci

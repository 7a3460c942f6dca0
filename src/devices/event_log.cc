#include "devices/event_log.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <optional>

namespace vmm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr unsigned kWhoShift = 16;
constexpr unsigned kQueueShift = 32;
constexpr unsigned kHeadShift = 48;

constexpr std::uint64_t owner_of(std::uint64_t number) noexcept { return 2 * number + 2; }

}  // namespace

EventLog::EventLog(std::uint32_t size, Live live)
    : size_(std::bit_floor(size)),
      live_(std::move(live)),
      slots_(size == 0 ? nullptr : std::make_unique<Slot[]>(size_)) {}

std::uint16_t EventLog::number_of(std::string_view device) {
  return devices_.with([device](std::vector<std::string>& names) {
    constexpr std::size_t kLast = std::numeric_limits<std::uint16_t>::max();
    const auto found = std::find(names.begin(), names.end(), device);
    const auto index = static_cast<std::size_t>(found - names.begin());
    if (found == names.end() && index <= kLast) names.emplace_back(device);
    return static_cast<std::uint16_t>(std::min(index, kLast));
  });
}

void EventLog::keep(const Event& event) noexcept {
  const std::uint64_t number = count_.fetch_add(1, kRelaxed);
  Slot& slot = slots_[static_cast<std::size_t>(number & (size_ - 1))];
  std::uint64_t owner = slot.owner.load(kRelaxed);
  // Who is late does not take a newer event's place.
  if ((owner & 1) != 0 || owner > owner_of(number) ||
      !slot.owner.compare_exchange_strong(owner, owner_of(number) | 1, kRelaxed)) {
    return;
  }
  // Whoever sees one of these words sees also that the slot has changed hands.
  std::atomic_thread_fence(std::memory_order_release);
  slot.time.store(TscTime::now(), kRelaxed);
  slot.what.store(static_cast<std::uint64_t>(event.kind) | std::uint64_t{event.who} << kWhoShift |
                      std::uint64_t{event.queue} << kQueueShift |
                      std::uint64_t{event.head} << kHeadShift,
                  kRelaxed);
  slot.address.store(event.address, kRelaxed);
  slot.value.store(event.value, kRelaxed);
  slot.owner.store(owner_of(number), std::memory_order_release);
}

DeviceEvent EventLog::described(const Event& event) const {
  DeviceEvent told{.kind = event.kind,
                   .queue = event.queue,
                   .head = event.head,
                   .address = event.address,
                   .value = event.value};
  if (told.is_interrupt()) {
    told.cpu = event.who;
  } else {
    told.device = devices_.with([&event](const std::vector<std::string>& names) {
      return event.who < names.size() ? names[event.who] : std::string();
    });
  }
  return told;
}

// Memory that is not there ends the process as it does everywhere; nothing else is thrown.
void EventLog::tell(const Event& event, std::string_view symbol) noexcept {
  DeviceEvent told = described(event);
  told.symbol = symbol;
  told.number = count_.load(kRelaxed);
  told.time = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  live_(told);
}

std::vector<DeviceEvent> EventLog::last(std::size_t most) const {
  std::vector<DeviceEvent> events;
  if (size_ == 0) return events;
  const TscTime::Scale scale = clock_.scale();
  const std::uint64_t end = count_.load(std::memory_order_acquire);
  for (std::uint64_t number = end - std::min<std::uint64_t>({end, size_, most}); number < end;
       ++number) {
    const Slot& slot = slots_[static_cast<std::size_t>(number & (size_ - 1))];
    if (slot.owner.load(std::memory_order_acquire) != owner_of(number)) continue;
    const std::uint64_t time = slot.time.load(kRelaxed);
    const std::uint64_t what = slot.what.load(kRelaxed);
    const Event event{.kind = static_cast<DeviceEventKind>(what & 0xff),
                      .who = static_cast<std::uint16_t>(what >> kWhoShift),
                      .queue = static_cast<std::uint16_t>(what >> kQueueShift),
                      .head = static_cast<std::uint16_t>(what >> kHeadShift),
                      .address = slot.address.load(kRelaxed),
                      .value = slot.value.load(kRelaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (slot.owner.load(kRelaxed) != owner_of(number)) continue;
    DeviceEvent told = described(event);
    told.number = number;
    told.time = scale.time_of(time);
    events.push_back(std::move(told));
  }
  return events;
}

}  // namespace vmm

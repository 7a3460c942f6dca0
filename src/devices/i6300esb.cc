#include "devices/i6300esb.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint32_t kClassCode = 0x08'8000;  // system peripheral, other
constexpr std::uint64_t kClockMhz = 33;          // of the PCI bus
constexpr unsigned kKilohertzShift = 15, kMegahertzShift = 5;

constexpr std::uint16_t kConfigurationBits =
    I6300esb::kOutputDisabled | I6300esb::kMegahertz | I6300esb::kInterruptType;
constexpr std::uint8_t kLockBits = I6300esb::kLocked | I6300esb::kEnabled | I6300esb::kFreeRunning;

// Leaves room for what is added to it.
constexpr std::uint64_t kLastMoment = std::numeric_limits<std::int64_t>::max();

}  // namespace

Result<void> I6300esb::State::validate() const {
  if ((configuration & ~kConfigurationBits) != 0 || (lock & ~kLockBits) != 0 ||
      preload1 > kMostPreload || preload2 > kMostPreload) {
    return fail(ErrorCode::kBadState, "A register of the watchdog holds bits that do not exist");
  }
  const bool may_count = (lock & kEnabled) != 0 && (lock & kFreeRunning) == 0;
  if (unlocked > 2 || stage > 2 || stage_end > kLastMoment || (stage != 0 && !may_count)) {
    return fail(ErrorCode::kBadState, "The watchdog is in a state that it cannot be in");
  }
  return {};
}

I6300esb::I6300esb(std::string id, Ports ports, bool expired_before)
    : endpoint_({.vendor = kVendor, .device = kDevice, .class_code = kClassCode}, ports.pci),
      s_{.timeout = expired_before},
      ports_(std::move(ports)),
      id_(std::move(id)),
      expired_before_(expired_before) {
  endpoint_.add_bar(0, pci::BarKind::kMemory32, pci::Endpoint::kSmallestBar, Widths{1, 2, 4});
  endpoint_.add_intx();
  endpoint_.power_on();
}

// --- Counting

std::uint64_t I6300esb::now() const {
  const auto now = ports_.clock == nullptr ? 0 : ports_.clock->now().count();
  return now <= 0 ? 0 : static_cast<std::uint64_t>(now);
}

// The 20 bits are the upper ones of a counter of 35 or 25.
std::uint64_t I6300esb::length_of(std::uint32_t preload) const {
  const unsigned shift = (s_.configuration & kMegahertz) != 0 ? kMegahertzShift : kKilohertzShift;
  return (std::uint64_t{preload} << shift) * 1000 / kClockMhz;
}

void I6300esb::begin() {
  s_.stage = 1;
  s_.stage_end = std::min(now() + length_of(s_.preload1), kLastMoment);
}

// The second stage begins when the first one ended, whenever that is noticed.
void I6300esb::catch_up() {
  if (s_.stage == 1 && now() >= s_.stage_end) {
    s_.interrupt = true;
    s_.stage = 2;
    s_.stage_end = std::min(s_.stage_end + length_of(s_.preload2), kLastMoment);
  }
  if (s_.stage == 2 && now() >= s_.stage_end) expire();
}

// Nothing counts from here on until the driver begins anew.
void I6300esb::expire() {
  s_.stage = 0;
  s_.timeout = true;
  if ((s_.configuration & kOutputDisabled) != 0) return;
  ++expirations_;
  if (ports_.events != nullptr) ports_.events->request(GuestRequest::kWatchdog, 0);
}

std::optional<std::chrono::nanoseconds> I6300esb::next_event() const {
  if (s_.stage == 0 || ports_.clock == nullptr) return std::nullopt;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(s_.stage_end));
}

void I6300esb::on_time() {
  catch_up();
  settle();
}

void I6300esb::settle() {
  endpoint_.set_intx(s_.interrupt && (s_.configuration & kInterruptType) == 0);
  const auto next = next_event();
  if (next == announced_) return;
  announced_ = next;
  if (ports_.on_rearm) ports_.on_rearm();
}

// --- Registers

std::array<std::byte, I6300esb::kRegistersSize> I6300esb::registers() const {
  std::array<std::byte, kRegistersSize> all{};
  const std::span<std::byte> bytes(all);
  store_le(bytes.subspan<kPreload1, 4>(), s_.preload1);
  store_le(bytes.subspan<kPreload2, 4>(), s_.preload2);
  store_le(bytes.subspan<kStatus, 2>(), s_.interrupt ? kInterruptActive : 0U);
  store_le(bytes.subspan<kReload, 2>(), s_.timeout ? kTimeout : 0U);
  return all;
}

void I6300esb::read(const IoAccess& access, std::span<std::byte> data) {
  catch_up();
  const bool config_space = endpoint_.read(access, data);
  const auto all = registers();
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (!config_space) {
      const std::uint64_t at = access.offset + i;
      data[i] = at < all.size() ? all[static_cast<std::size_t>(at)] : std::byte{0};
      continue;
    }
    const std::uint64_t at = access.offset - pci::Endpoint::kConfig + i;
    if (at == kConfiguration) data[i] = static_cast<std::byte>(s_.configuration);
    if (at == kLock) data[i] = static_cast<std::byte>(s_.lock);
  }
  settle();
}

void I6300esb::write(const IoAccess& access, std::span<const std::byte> data) {
  catch_up();
  if (endpoint_.write(access, data)) {
    write_config_space(access.offset - pci::Endpoint::kConfig, data);
  } else {
    write_register(access.offset, data);
  }
  settle();
}

// All bits of the configuration that exist are in its lower byte.
void I6300esb::write_config_space(std::uint64_t offset, std::span<const std::byte> data) {
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto value = std::to_integer<std::uint8_t>(data[i]);
    if (offset + i == kConfiguration) s_.configuration = value & kConfigurationBits;
    if (offset + i == kLock) write_lock(value);
  }
}

// A locked register keeps what it holds until the next power-on.
void I6300esb::write_lock(std::uint8_t value) {
  if ((s_.lock & kLocked) != 0) return;
  const bool counted = (s_.lock & kEnabled) != 0 && (s_.lock & kFreeRunning) == 0;
  s_.lock = value & kLockBits;
  const bool counts = (s_.lock & kEnabled) != 0 && (s_.lock & kFreeRunning) == 0;
  if (!counts) s_.stage = 0;
  if (counts && !counted) begin();
}

void I6300esb::write_register(std::uint64_t offset, std::span<const std::byte> data) {
  const std::uint64_t value = load_le(data);
  const bool preload = (offset == kPreload1 || offset == kPreload2) && data.size() == 4;
  if (offset == kReload) {
    write_reload(value);
  } else if (offset == kStatus) {
    if ((value & kInterruptActive) != 0) s_.interrupt = false;
  } else if (const auto steps = std::exchange(s_.unlocked, std::uint8_t{0});
             preload && steps == 2) {
    // Takes effect when a stage begins.
    (offset == kPreload1 ? s_.preload1 : s_.preload2) =
        static_cast<std::uint32_t>(value) & kMostPreload;
  }
}

// Two values in this order, then what they unlock; anything else locks again.
void I6300esb::write_reload(std::uint64_t value) {
  const std::uint8_t steps = std::exchange(s_.unlocked, std::uint8_t{0});
  if (value == kUnlock1) {
    s_.unlocked = 1;
  } else if (value == kUnlock2 && steps == 1) {
    s_.unlocked = 2;
  } else if (steps == 2) {
    if ((value & kTimeout) != 0) s_.timeout = false;
    const bool counts = (s_.lock & kEnabled) != 0 && (s_.lock & kFreeRunning) == 0;
    if ((value & kReloadBit) != 0 && counts) begin();
  }
}

// --- Life

void I6300esb::reset() {
  s_ = State{.timeout = expired_before_};
  endpoint_.reset();
  settle();
}

void I6300esb::save(StateWriter& writer) const {
  State state = s_;
  state.endpoint = endpoint_.state();
  writer.put(state);
}

Result<void> I6300esb::restore(const StateReader& reader) {
  State state = VMM_TRY(reader.get<State>());
  VMM_TRY(endpoint_.check(state.endpoint));
  endpoint_.set_state(std::exchange(state.endpoint, {}));
  s_ = std::move(state);
  settle();
  return {};
}

}  // namespace vmm

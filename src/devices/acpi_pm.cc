#include "devices/acpi_pm.h"

#include <array>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

// Offsets in the window.
constexpr std::size_t kStatus = 0;
constexpr std::size_t kEnable = 2;
constexpr std::size_t kControl = 4;
constexpr std::size_t kTimer = 8;
constexpr std::size_t kGpeStatus = 12;
constexpr std::size_t kGpeEnable = 14;
static_assert(AcpiPmLayout::kGpeBlock == AcpiPmLayout::kBase + kGpeStatus);

// PM1_STS and PM1_EN (tables 4.16 and 4.17): a status bit is cleared by writing 1 to it.
constexpr std::uint16_t kTimerBit = 1U << 0;
constexpr std::uint16_t kGlobalLock = 1U << 5;
constexpr std::uint16_t kPowerButton = 1U << 8;
constexpr std::uint16_t kSleepButton = 1U << 9;
constexpr std::uint16_t kRtc = 1U << 10;
constexpr std::uint16_t kEvents = kTimerBit | kGlobalLock | kPowerButton | kSleepButton | kRtc;
constexpr std::uint16_t kWake = 1U << 15;  // WAK_STS: a status only

// PM1_CNT (table 4.18).
constexpr std::uint16_t kSciEn = 1U << 0;
constexpr std::uint16_t kBmRld = 1U << 1;
constexpr unsigned kSlpTypShift = 10;
constexpr std::uint16_t kSlpTyp = 7U << kSlpTypShift;
constexpr std::uint16_t kSlpEn = 1U << 13;
constexpr std::uint16_t kControlStored = kBmRld | kSlpTyp;

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

using Wide = unsigned __int128;

}  // namespace

Result<void> AcpiPm::State::validate() const {
  if ((status & ~(kEvents | kWake)) != 0 || (enable & ~kEvents) != 0 ||
      (control & ~kControlStored) != 0) {
    return fail(ErrorCode::kBadState, "A PM1 register holds bits that do not exist");
  }
  if ((gpe_inputs & ~gpe_status) != 0) {
    return fail(ErrorCode::kBadState, "A general-purpose event is asserted and has no status");
  }
  if (sleep > Sleep::kAsleep) return fail(ErrorCode::kBadState, "A sleep state that is none");
  return {};
}

AcpiPm::AcpiPm(std::string id, Ports ports) : ports_(std::move(ports)), id_(std::move(id)) {
  s_.timer_seen = half_periods();
}

std::uint64_t AcpiPm::ticks() const {
  if (ports_.clock == nullptr) return 0;
  const auto now = ports_.clock->now().count();
  return now <= 0 ? 0
                  : static_cast<std::uint64_t>(static_cast<Wide>(now) * kTimerHz /
                                               kNanosecondsPerSecond);
}

// The status bit follows each change of the timer's most significant bit.
unsigned AcpiPm::half_period_bits() const { return ports_.timer_is_32_bit ? 31 : 23; }
std::uint64_t AcpiPm::half_periods() const { return ticks() >> half_period_bits(); }

std::uint16_t AcpiPm::status_now() const {
  return half_periods() > s_.timer_seen ? static_cast<std::uint16_t>(s_.status | kTimerBit)
                                        : s_.status;
}

std::uint16_t AcpiPm::control_now() const {
  return static_cast<std::uint16_t>(s_.control | kSciEn);
}

void AcpiPm::catch_up() {
  s_.status = status_now();
  s_.timer_seen = half_periods();
}

bool AcpiPm::gpe_asserted() const { return (s_.gpe_status & s_.gpe_enable) != 0; }

bool AcpiPm::sci_asserted() const { return (status_now() & s_.enable) != 0 || gpe_asserted(); }

void AcpiPm::settle() {
  ports_.sci.set_level(sci_asserted());
  if (wakes() && !std::exchange(wake_requested_, true) && ports_.events != nullptr) {
    ports_.events->request(GuestRequest::kWake, 0);
  }
  const auto next = next_event();
  if (next == announced_) return;
  announced_ = next;
  if (ports_.on_rearm) ports_.on_rearm();
}

std::optional<std::chrono::nanoseconds> AcpiPm::next_event() const {
  if ((s_.enable & kTimerBit) == 0 || sci_asserted() || ports_.clock == nullptr) {
    return std::nullopt;
  }
  const Wide edge = (static_cast<Wide>(s_.timer_seen) + 1) << half_period_bits();
  const Wide due = (edge * kNanosecondsPerSecond + kTimerHz - 1) / kTimerHz;
  const Wide last = static_cast<Wide>(std::chrono::nanoseconds::max().count());
  if (due > last) return std::nullopt;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(due));
}

void AcpiPm::on_time() {
  catch_up();
  settle();
}

void AcpiPm::press_power_button() {
  s_.status |= kPowerButton;
  settle();
}

void AcpiPm::set_rtc_alarm(bool asserted) {
  if (asserted && !s_.rtc_input) s_.status |= kRtc;
  s_.rtc_input = asserted;
  settle();
}

void AcpiPm::fall_asleep() {
  if (s_.sleep != Sleep::kAwake) return;
  s_.sleep = Sleep::kFalling;
  if (ports_.events != nullptr) ports_.events->request(GuestRequest::kSleep, 0);
}

void AcpiPm::fallen_asleep() {
  if (s_.sleep != Sleep::kFalling) return;
  s_.sleep = Sleep::kAsleep;
  wake_requested_ = false;
  settle();
}

// The power button needs no enable bit then (4.8.2.2.1.1); the timer and the global lock have no
// power. What happened before the machine slept counts: nobody has cleared it.
bool AcpiPm::wakes() const {
  if (s_.sleep != Sleep::kAsleep) return false;
  return (s_.status & kPowerButton) != 0 || (s_.status & s_.enable & (kRtc | kSleepButton)) != 0 ||
         gpe_asserted();
}

void AcpiPm::wake_up() {
  s_.sleep = Sleep::kAwake;
  s_.status |= kWake;
  settle();
}

void AcpiPm::set_gpe(unsigned event, bool asserted) {
  if (event >= AcpiPmLayout::kGpes) return;
  const auto bit = static_cast<std::uint16_t>(1U << event);
  s_.gpe_inputs = static_cast<std::uint16_t>(asserted ? s_.gpe_inputs | bit : s_.gpe_inputs & ~bit);
  s_.gpe_status = static_cast<std::uint16_t>(s_.gpe_status | s_.gpe_inputs);
  settle();
}

void AcpiPm::write_control(std::uint16_t value) {
  s_.control = value & kControlStored;
  // Without a machine there is nobody who could put it to sleep, nor wake it.
  if ((value & kSlpEn) == 0 || ports_.events == nullptr) return;
  switch ((value & kSlpTyp) >> kSlpTypShift) {
    case AcpiPmLayout::kSlpTypS3:
      fall_asleep();
      break;
    case AcpiPmLayout::kSlpTypS5:
      ports_.events->request(GuestRequest::kPowerOff, 0);
      break;
    default:
      break;
  }
}

void AcpiPm::read(const IoAccess& access, std::span<std::byte> data) {
  catch_up();
  std::array<std::byte, AcpiPmLayout::kSize> registers{};
  const std::span<std::byte> all(registers);
  store_le(all.subspan<kStatus, 2>(), s_.status);
  store_le(all.subspan<kEnable, 2>(), s_.enable);
  store_le(all.subspan<kControl, 2>(), control_now());
  const std::uint64_t mask = ports_.timer_is_32_bit ? 0xffff'ffff : 0xff'ffff;
  store_le(all.subspan<kTimer, 4>(), ticks() & mask);
  store_le(all.subspan<kGpeStatus, 2>(), s_.gpe_status);
  store_le(all.subspan<kGpeEnable, 2>(), s_.gpe_enable);
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = access.offset + i;
    if (at < registers.size()) data[i] = registers[at];
  }
  settle();
}

// Bytes that an access leaves alone keep their value; of a status register that means 0, which
// clears nothing.
void AcpiPm::write(const IoAccess& access, std::span<const std::byte> data) {
  catch_up();
  std::array<std::byte, AcpiPmLayout::kSize> registers{};
  const std::span<std::byte> all(registers);
  store_le(all.subspan<kEnable, 2>(), s_.enable);
  store_le(all.subspan<kControl, 2>(), control_now());
  store_le(all.subspan<kGpeEnable, 2>(), s_.gpe_enable);
  bool control_written = false;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = access.offset + i;
    if (at < registers.size()) registers[at] = data[i];
    control_written = control_written || (at >= kControl && at < kControl + 2);
  }
  s_.status = static_cast<std::uint16_t>(s_.status & ~load_le(all.subspan<kStatus, 2>()));
  s_.enable = static_cast<std::uint16_t>(load_le(all.subspan<kEnable, 2>())) & kEvents;
  const auto gpe_cleared = load_le(all.subspan<kGpeStatus, 2>());
  s_.gpe_status = static_cast<std::uint16_t>((s_.gpe_status & ~gpe_cleared) | s_.gpe_inputs);
  s_.gpe_enable = static_cast<std::uint16_t>(load_le(all.subspan<kGpeEnable, 2>()));
  if (control_written) {
    write_control(static_cast<std::uint16_t>(load_le(all.subspan<kControl, 2>())));
  }
  settle();
}

// What drives the inputs is outside, and says so when it is reset itself.
void AcpiPm::reset() {
  const State before = s_;
  s_ = State{};
  s_.gpe_inputs = before.gpe_inputs;
  s_.gpe_status = before.gpe_inputs;
  s_.rtc_input = before.rtc_input;
  s_.timer_seen = half_periods();  // the timer itself runs on
  settle();
}

void AcpiPm::save(StateWriter& writer) const { writer.put(s_); }

Result<void> AcpiPm::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  wake_requested_ = false;
  settle();
  return {};
}

}  // namespace vmm

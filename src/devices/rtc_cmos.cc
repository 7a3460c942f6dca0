#include "devices/rtc_cmos.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/size.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

using std::chrono::nanoseconds;
using Wide = __int128;

// Registers (datasheet figure 10).
constexpr std::size_t kSeconds = 0x00;
constexpr std::size_t kSecondsAlarm = 0x01;
constexpr std::size_t kMinutes = 0x02;
constexpr std::size_t kMinutesAlarm = 0x03;
constexpr std::size_t kHours = 0x04;
constexpr std::size_t kHoursAlarm = 0x05;
constexpr std::size_t kDayOfWeek = 0x06;
constexpr std::size_t kDayOfMonth = 0x07;
constexpr std::size_t kMonth = 0x08;
constexpr std::size_t kYear = 0x09;
constexpr std::size_t kA = 0x0a;
constexpr std::size_t kB = 0x0b;
constexpr std::size_t kC = 0x0c;
constexpr std::size_t kD = 0x0d;

// What a PC's firmware leaves in CMOS.
constexpr std::size_t kEquipment = 0x14;           // bit 1: there is a floating-point unit
constexpr std::size_t kBaseMemory = 0x15;          // 16 bits, KiB
constexpr std::size_t kExtendedMemory = 0x17;      // 16 bits, KiB above 1 MiB
constexpr std::size_t kExtendedMemoryPost = 0x30;  // the same again
constexpr std::size_t kMemoryAbove16M = 0x34;      // 16 bits, units of 64 KiB
constexpr std::size_t kMemoryAbove4G = 0x5b;       // 24 bits, units of 64 KiB

constexpr std::uint8_t kUip = 0x80;          // A
constexpr std::uint8_t kDividerMask = 0x70;  // A
constexpr std::uint8_t kDividerRuns = 0x20;  // A: 32.768 kHz
constexpr std::uint8_t kRateMask = 0x0f;     // A
constexpr std::uint8_t kPowerOnA = 0x26;     // rate 1024 Hz
constexpr std::uint8_t kSet = 0x80;          // B
constexpr std::uint8_t kPie = 0x40;          // B, and PF of C
constexpr std::uint8_t kAie = 0x20;          // B, and AF of C
constexpr std::uint8_t kUie = 0x10;          // B, and UF of C
constexpr std::uint8_t kInterrupts = kPie | kAie | kUie;
constexpr std::uint8_t kBinary = 0x04;     // B.DM
constexpr std::uint8_t k24Hours = 0x02;    // B
constexpr std::uint8_t kIrqf = 0x80;       // C
constexpr std::uint8_t kVrt = 0x80;        // D: time and memory are valid
constexpr std::uint8_t kAnyAlarm = 0xc0;   // an alarm byte from here on matches everything
constexpr std::uint8_t kPm = 0x80;         // in a 12-hour byte
constexpr std::uint8_t kIndexMask = 0x7f;  // bit 7 of the index port masks NMI

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kMinuteSeconds = 60;
constexpr std::int64_t kDaySeconds = 86'400;
constexpr std::uint64_t kCyclesPerSecond = 32'768;
// UIP is on from 244 us before an update until it ends, 1984 us long (tBUC and tUC).
constexpr std::int64_t kUipNanoseconds = 2'228'000;

// What four digits of a year can say.
constexpr std::int64_t kFirstSecond = -62'167'219'200;  // 0000-01-01 00:00:00
constexpr std::int64_t kLastSecond = 253'402'300'799;   // 9999-12-31 23:59:59
// No sound state is further off UTC, and so, the Clock's 292 years included, none shows a time as
// far as twice that.
constexpr std::int64_t kFarthestOffset = 1'000'000'000'000;
constexpr std::int64_t kFarthestTime = 2 * kFarthestOffset;

bool is_time(std::size_t index) {
  return index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kDayOfWeek && index <= kYear) || index == RtcCmos::kCentury;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
std::int64_t floor_mod(std::int64_t a, std::int64_t b) { return a - floor_div(a, b) * b; }

nanoseconds clamp_to_nanoseconds(Wide value) {
  constexpr Wide kMost = std::numeric_limits<std::int64_t>::max();
  return nanoseconds(static_cast<std::int64_t>(std::clamp<Wide>(value, 0, kMost)));
}

void store16(std::array<std::uint8_t, 128>& cmos, std::size_t at, std::uint64_t value) {
  const std::uint64_t fits = std::min<std::uint64_t>(value, 0xffff);
  cmos[at] = static_cast<std::uint8_t>(fits);
  cmos[at + 1] = static_cast<std::uint8_t>(fits >> 8);
}

}  // namespace

Result<void> RtcCmos::State::validate() const {
  if ((cmos[kA] & kUip) != 0 || (cmos[kC] & ~kInterrupts) != 0 || cmos[kD] != kVrt) {
    return fail(ErrorCode::kBadState, "A clock register holds bits that do not exist");
  }
  const auto within = [](std::int64_t seconds, std::int64_t limit) {
    return seconds >= -limit && seconds <= limit;
  };
  if (phase_nanoseconds < 0 || phase_nanoseconds >= kSecond ||
      !within(offset_seconds, kFarthestOffset) || !within(seconds_seen, kFarthestTime)) {
    return fail(ErrorCode::kBadState, "A clock's time is out of range");
  }
  return {};
}

RtcCmos::RtcCmos(std::string id, Ports ports, Memory memory)
    : ports_(std::move(ports)), memory_(memory), id_(std::move(id)) {
  power_on();
}

void RtcCmos::power_on() {
  s_ = State{};
  s_.cmos[kA] = kPowerOnA;
  s_.cmos[kB] = k24Hours;
  s_.cmos[kD] = kVrt;
  s_.cmos[kEquipment] = 0x02;
  store16(s_.cmos, kBaseMemory, 640);
  const std::uint64_t extended =
      memory_.below_4g > MiB(1) ? (memory_.below_4g - MiB(1)) / KiB(1) : 0;
  store16(s_.cmos, kExtendedMemory, extended);
  store16(s_.cmos, kExtendedMemoryPost, extended);
  store16(s_.cmos, kMemoryAbove16M,
          memory_.below_4g > MiB(16) ? (memory_.below_4g - MiB(16)) / KiB(64) : 0);
  const std::uint64_t high = std::min<std::uint64_t>(memory_.above_4g / KiB(64), 0xff'ffff);
  for (std::size_t i = 0; i < 3; ++i) {
    s_.cmos[kMemoryAbove4G + i] = static_cast<std::uint8_t>(high >> (8 * i));
  }
  s_.seconds_seen = moment().seconds;
  s_.cycles_seen = cycles();
}

// --- time

RtcCmos::Moment RtcCmos::moment() const {
  const std::int64_t utc = ports_.clock == nullptr ? 0 : ports_.clock->utc().count();
  const std::int64_t nanoseconds = floor_mod(utc, kSecond) + s_.phase_nanoseconds;
  const std::int64_t seconds =
      floor_div(utc, kSecond) + s_.offset_seconds + floor_div(nanoseconds, kSecond);
  return {.seconds = seconds, .nanoseconds = floor_mod(nanoseconds, kSecond)};
}

std::uint64_t RtcCmos::cycles() const {
  if (ports_.clock == nullptr) return 0;
  const Wide now = std::max<std::int64_t>(ports_.clock->now().count(), 0);
  return static_cast<std::uint64_t>(now * kCyclesPerSecond / kSecond);
}

bool RtcCmos::counting() const { return (s_.cmos[kA] & kDividerMask) == kDividerRuns; }
bool RtcCmos::running() const { return counting() && (s_.cmos[kB] & kSet) == 0; }

// Table 5: rates 1 and 2 are out of order, 256 and 128 Hz.
unsigned RtcCmos::periodic_shift() const {
  const unsigned rate = s_.cmos[kA] & kRateMask;
  if (rate == 0) return 0;
  return rate <= 2 ? rate + 6 : rate - 1;
}

std::uint8_t RtcCmos::encode(unsigned value) const {
  return static_cast<std::uint8_t>((s_.cmos[kB] & kBinary) != 0 ? value
                                                                : (value / 10) << 4 | value % 10);
}

unsigned RtcCmos::decode(std::uint8_t value) const {
  return (s_.cmos[kB] & kBinary) != 0 ? value : (value >> 4) * 10U + (value & 0x0fU);
}

std::uint8_t RtcCmos::encode_hour(unsigned hour) const {
  if ((s_.cmos[kB] & k24Hours) != 0) return encode(hour);
  const std::uint8_t digits = encode(hour % 12 == 0 ? 12 : hour % 12);
  return hour >= 12 ? static_cast<std::uint8_t>(digits | kPm) : digits;
}

unsigned RtcCmos::decode_hour(std::uint8_t value) const {
  if ((s_.cmos[kB] & k24Hours) != 0) return decode(value);
  const unsigned hour = decode(value & static_cast<std::uint8_t>(~kPm)) % 12;
  return (value & kPm) != 0 ? hour + 12 : hour;
}

// A time as the registers show it, in the format that register B asks for.
void RtcCmos::show_time(std::int64_t seconds, std::array<std::uint8_t, 128>& cmos) const {
  const std::int64_t shown = std::clamp(seconds, kFirstSecond, kLastSecond);
  const std::int64_t days = floor_div(shown, kDaySeconds);
  const auto of_day = static_cast<unsigned>(floor_mod(shown, kDaySeconds));
  const std::chrono::sys_days date{std::chrono::days(days)};
  const std::chrono::year_month_day ymd(date);
  const auto year = static_cast<unsigned>(static_cast<int>(ymd.year()));
  cmos[kSeconds] = encode(of_day % 60);
  cmos[kMinutes] = encode(of_day / 60 % 60);
  cmos[kHours] = encode_hour(of_day / 3600);
  cmos[kDayOfWeek] = encode(std::chrono::weekday(date).c_encoding() + 1);  // Sunday is 1
  cmos[kDayOfMonth] = encode(static_cast<unsigned>(ymd.day()));
  cmos[kMonth] = encode(static_cast<unsigned>(ymd.month()));
  cmos[kYear] = encode(year % 100);
  cmos[kCentury] = encode(year / 100);
}

// What the registers say. Nonsense in them (the 40th of month 0) becomes some nearby time, as the
// datasheet leaves it open.
std::int64_t RtcCmos::load_time() const {
  using namespace std::chrono;
  const unsigned number = decode(s_.cmos[kCentury]) % 100 * 100 + decode(s_.cmos[kYear]) % 100;
  const unsigned which = std::clamp(decode(s_.cmos[kMonth]), 1U, 12U);
  const sys_days first{year(static_cast<int>(number)) / month(which) / day(1)};
  const std::int64_t days = first.time_since_epoch().count() +
                            static_cast<std::int64_t>(decode(s_.cmos[kDayOfMonth])) - 1;
  return days * kDaySeconds + static_cast<std::int64_t>(decode_hour(s_.cmos[kHours])) * 3600 +
         static_cast<std::int64_t>(decode(s_.cmos[kMinutes])) * 60 +
         static_cast<std::int64_t>(decode(s_.cmos[kSeconds]));
}

// From now on the time is `seconds`; where the second ends does not change.
void RtcCmos::set_time(std::int64_t seconds) {
  s_.offset_seconds += seconds - moment().seconds;
  s_.seconds_seen = seconds;
}

// The first second in (after, until] at which the alarm rings, at most a day after `after`. Bytes
// are compared as they stand in the registers, so formats and don't-care codes need no case.
std::optional<std::int64_t> RtcCmos::next_alarm(std::int64_t after, std::int64_t until) const {
  const auto matches = [](std::uint8_t alarm, std::uint8_t now) {
    return alarm >= kAnyAlarm || alarm == now;
  };
  const std::int64_t last = std::min(until, after + kDaySeconds);
  std::int64_t at = after + 1;
  while (at <= last) {
    const auto of_day = static_cast<unsigned>(floor_mod(at, kDaySeconds));
    const std::int64_t next_minute = at - of_day % 60 + kMinuteSeconds;
    if (matches(s_.cmos[kHoursAlarm], encode_hour(of_day / 3600)) &&
        matches(s_.cmos[kMinutesAlarm], encode(of_day / 60 % 60))) {
      for (; at < next_minute && at <= last; ++at) {
        const auto second = static_cast<unsigned>(floor_mod(at, kMinuteSeconds));
        if (matches(s_.cmos[kSecondsAlarm], encode(second))) return at;
      }
    }
    at = next_minute;
  }
  return std::nullopt;
}

// --- flags

// Sets the flags that fell due since the last call.
void RtcCmos::catch_up() {
  unsigned flags = s_.cmos[kC];
  const std::uint64_t cycles_now = cycles();
  const unsigned shift = periodic_shift();
  if (counting() && shift != 0 && cycles_now >> shift > s_.cycles_seen >> shift) flags |= kPie;
  s_.cycles_seen = cycles_now;
  if (running()) {
    const std::int64_t now = moment().seconds;
    if (now > s_.seconds_seen) {
      flags |= kUie;
      if (next_alarm(s_.seconds_seen, now)) flags |= kAie;
    }
    s_.seconds_seen = now;
  }
  s_.cmos[kC] = static_cast<std::uint8_t>(flags);
}

bool RtcCmos::irq_asserted() const { return (s_.cmos[kB] & s_.cmos[kC] & kInterrupts) != 0; }
bool RtcCmos::alarm_asserted() const { return (s_.cmos[kB] & s_.cmos[kC] & kAie) != 0; }

void RtcCmos::settle() {
  ports_.irq.set_level(irq_asserted());
  ports_.alarm.set_level(alarm_asserted());
  const auto next = next_event();
  if (next == announced_) return;
  announced_ = next;
  if (ports_.on_rearm) ports_.on_rearm();
}

// While a line is asserted nothing new can happen to it until the guest reads register C.
std::optional<nanoseconds> RtcCmos::next_event() const {
  if (ports_.clock == nullptr || alarm_asserted()) return std::nullopt;
  const std::uint8_t enabled = irq_asserted() ? s_.cmos[kB] & kAie : s_.cmos[kB];
  std::optional<nanoseconds> first;
  const auto consider = [&first](nanoseconds due) { first = std::min(first.value_or(due), due); };
  if ((enabled & kPie) != 0 && counting() && periodic_shift() != 0) {
    const unsigned shift = periodic_shift();
    const Wide edge = ((static_cast<Wide>(s_.cycles_seen) >> shift) + 1) << shift;
    consider(clamp_to_nanoseconds((edge * kSecond + kCyclesPerSecond - 1) / kCyclesPerSecond));
  }
  const auto consider_second = [&](std::int64_t second) {
    const Moment now = moment();
    const Wide distance = (static_cast<Wide>(second) - now.seconds) * kSecond - now.nanoseconds;
    consider(clamp_to_nanoseconds(ports_.clock->now().count() + distance));
  };
  if ((enabled & kUie) != 0 && running()) consider_second(s_.seconds_seen + 1);
  if ((enabled & kAie) != 0 && running()) {
    const auto alarm = next_alarm(s_.seconds_seen, s_.seconds_seen + kDaySeconds);
    if (alarm) consider_second(*alarm);
  }
  return first;
}

void RtcCmos::on_time() {
  catch_up();
  settle();
}

// --- registers

std::uint8_t RtcCmos::read_register() {
  const std::size_t index = s_.index & kIndexMask;
  if (index == kA) {
    const bool updating = running() && moment().nanoseconds >= kSecond - kUipNanoseconds;
    return static_cast<std::uint8_t>(s_.cmos[kA] | (updating ? kUip : 0));
  }
  if (index == kC) {
    const auto value = static_cast<std::uint8_t>(s_.cmos[kC] | (irq_asserted() ? kIrqf : 0));
    s_.cmos[kC] = 0;
    return value;
  }
  if (is_time(index) && running()) {
    std::array<std::uint8_t, 128> shown{};
    show_time(moment().seconds, shown);
    return shown[index];
  }
  return s_.cmos[index];
}

// A clock that stops shows, from then on, the time at which it did; one that starts goes on from
// what its registers say. When the divider is let go, the next second begins half a second later
// (datasheet, "divider control").
void RtcCmos::write_a(std::uint8_t value) {
  const bool was_running = running();
  const bool was_counting = counting();
  s_.cmos[kA] = value & static_cast<std::uint8_t>(~kUip);
  if (was_running && !running()) show_time(moment().seconds, s_.cmos);
  if (!was_counting && counting()) {
    s_.phase_nanoseconds =
        floor_mod(s_.phase_nanoseconds + kSecond / 2 - moment().nanoseconds, kSecond);
  }
  if (!was_running && running()) set_time(load_time());
}

void RtcCmos::write_b(std::uint8_t value) {
  const bool was_running = running();
  const bool set = (value & kSet) != 0;
  // In the old format: the chip converts nothing.
  if (was_running && set) show_time(moment().seconds, s_.cmos);
  // Setting SET takes UIE away (datasheet, register B).
  s_.cmos[kB] = set ? value & static_cast<std::uint8_t>(~kUie) : value;
  if (!was_running && running()) set_time(load_time());
}

void RtcCmos::write_time(std::uint8_t value) {
  const std::size_t index = s_.index & kIndexMask;
  if (!running()) {
    s_.cmos[index] = value;
    return;
  }
  show_time(moment().seconds, s_.cmos);
  s_.cmos[index] = value;
  set_time(load_time());
}

void RtcCmos::write_register(std::uint8_t value) {
  const std::size_t index = s_.index & kIndexMask;
  if (is_time(index)) return write_time(value);
  switch (index) {
    case kA:
      return write_a(value);
    case kB:
      return write_b(value);
    case kC:
    case kD:
      return;  // for reading only
    default:
      s_.cmos[index] = value;
  }
}

void RtcCmos::read(const IoAccess& access, std::span<std::byte> data) {
  if (data.empty() || access.offset != 1) return;  // the index cannot be read back
  catch_up();
  data[0] = std::byte{read_register()};
  settle();
}

void RtcCmos::write(const IoAccess& access, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  catch_up();
  if (access.offset == 0) {
    s_.index = value;
  } else if (access.offset == 1) {
    write_register(value);
  }
  settle();
}

void RtcCmos::reset() {
  power_on();
  settle();
}

void RtcCmos::save(StateWriter& writer) const { writer.put(s_); }

Result<void> RtcCmos::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm

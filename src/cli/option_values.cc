#include "cli/option_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <ctime>

#include "base/join.h"
#include "vmm/doctor/quirks.h"

namespace vmm::cli {
namespace {

template <typename T, std::size_t N>
using Words = std::array<std::pair<std::string_view, T>, N>;

constexpr Words<BootProtocol, 7> kProtocols{{{"auto", BootProtocol::kAuto},
                                             {"linux64", BootProtocol::kLinux64},
                                             {"bzimage", BootProtocol::kBzimage},
                                             {"pvh", BootProtocol::kPvh},
                                             {"multiboot", BootProtocol::kMultiboot},
                                             {"multiboot2", BootProtocol::kMultiboot2},
                                             {"flat", BootProtocol::kFlat}}};
constexpr Words<FlatMode, 3> kModes{
    {{"real", FlatMode::kReal}, {"protected", FlatMode::kProtected}, {"long", FlatMode::kLong}}};
constexpr Words<WatchdogAction, 5> kWatchdogActions{{{"reset", WatchdogAction::kReset},
                                                     {"poweroff", WatchdogAction::kPowerOff},
                                                     {"panic", WatchdogAction::kPanic},
                                                     {"stop", WatchdogAction::kStop},
                                                     {"none", WatchdogAction::kNone}}};
constexpr Words<Toggle, 3> kToggles{
    {{"on", Toggle::kOn}, {"off", Toggle::kOff}, {"auto", Toggle::kAuto}}};

template <typename T, std::size_t N>
Result<T> word(std::string_view text, const Words<T, N>& words) {
  return parse_word<T>(text, std::span<const std::pair<std::string_view, T>>(words));
}

// "key=value" in two; nothing when there is no '='.
std::optional<std::pair<std::string_view, std::string_view>> key_value(std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

bool is_feature_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
  });
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t most) {
  const bool hex = text.size() > 2 && (text.starts_with("0x") || text.starts_with("0X"));
  const std::string_view digits = hex ? text.substr(2) : text;
  std::uint64_t value = 0;
  const auto [end, ec] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (digits.empty() || end != digits.data() + digits.size() || ec == std::errc::invalid_argument) {
    return fail(ErrorCode::kBadConfig, "'{}' is not a number", text);
  }
  if (ec == std::errc::result_out_of_range || value > most) {
    return fail(ErrorCode::kBadConfig, "{} is too large: at most {:#x} ({}) is possible", text,
                most, most);
  }
  return value;
}

Result<BootChoice> parse_boot(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ',');
  BootChoice choice;
  choice.protocol = VMM_TRY(word(parts.front(), kProtocols));
  for (const std::string_view part : std::span(parts).subspan(1)) {
    if (choice.protocol != BootProtocol::kFlat) {
      return fail(ErrorCode::kBadConfig, "'{}' belongs to flat only", part);
    }
    const auto pair = key_value(part);
    if (pair && pair->first == "addr") {
      choice.address = Gpa(VMM_TRY(parse_size(pair->second)));
    } else if (pair && pair->first == "mode") {
      choice.mode = VMM_TRY(word(pair->second, kModes));
    } else {
      return fail(ErrorCode::kBadConfig, "'{}' is unknown: flat takes addr=ADDRESS and mode=MODE",
                  part);
    }
  }
  return choice;
}

Result<BootModule> parse_module(std::string_view text) {
  const auto comma = text.find(',');
  if (comma == 0 || text.empty()) return fail(ErrorCode::kBadConfig, "the file name is empty");
  BootModule module{.file = std::string(text.substr(0, comma))};
  if (comma != std::string_view::npos) module.arguments = text.substr(comma + 1);
  return module;
}

Result<FwCfgFile> parse_fw_cfg(std::string_view text) {
  FwCfgFile file;
  bool content = false;
  while (!text.empty()) {
    const auto pair = key_value(text);
    // A text may contain commas, so it comes last.
    const bool last = pair && pair->first == "string";
    const auto comma = last ? std::string_view::npos : text.find(',');
    const auto part = key_value(text.substr(0, comma));
    if (part && part->first == "name") {
      file.name = part->second;
    } else if (part && part->first == "file" && !part->second.empty()) {
      file.file = part->second;
      content = true;
    } else if (last) {
      file.text = pair->second;
      content = true;
    } else {
      return fail(ErrorCode::kBadConfig,
                  "'{}' is unknown: write name=NAME,file=PATH or name=NAME,string=TEXT",
                  text.substr(0, comma));
    }
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
  }
  if (file.name.empty() || !content || (file.file && !file.text.empty())) {
    return fail(ErrorCode::kBadConfig,
                "needs a name and a content: name=NAME,file=PATH or name=NAME,string=TEXT");
  }
  return file;
}

Result<std::array<std::uint8_t, 16>> parse_uuid(std::string_view text) {
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash != (text[i] == '-')) digits.clear();
    if (dash != (text[i] == '-')) break;
    if (!dash) digits += text[i];
  }
  std::array<std::uint8_t, 16> uuid{};
  bool good = text.size() == 36 && digits.size() == 2 * uuid.size();
  for (std::size_t i = 0; good && i < uuid.size(); ++i) {
    const char* const at = digits.data() + 2 * i;
    const auto [end, error] = std::from_chars(at, at + 2, uuid[i], 16);
    good = error == std::errc{} && end == at + 2;
  }
  if (good) return uuid;
  return fail(ErrorCode::kBadConfig,
              "'{}' is no UUID: 8-4-4-4-12 hexadecimal digits with dashes between", text);
}

Result<CpuConfig> parse_cpu(std::string_view text, std::uint32_t count) {
  CpuConfig cpu;
  cpu.count = count;
  const std::vector<std::string_view> parts = split(text, ',');
  if (parts.front() != "host") {
    return fail(ErrorCode::kBadConfig,
                "'{}' is not a CPU: write host, followed by ,-feature or ,+feature as needed",
                parts.front());
  }
  for (const std::string_view part : std::span(parts).subspan(1)) {
    const char sign = part.empty() ? '\0' : part.front();
    const std::string_view name = part.empty() ? part : part.substr(1);
    if ((sign != '+' && sign != '-') || !is_feature_name(name)) {
      return fail(ErrorCode::kBadConfig, "'{}' is neither -feature nor +feature", part);
    }
    (sign == '+' ? cpu.add_features : cpu.remove_features).emplace_back(name);
  }
  return cpu;
}

Result<ConsoleSpec> parse_serial(std::string_view text) {
  if (text == "stdio") return ConsoleSpec(StreamConsole{.input_fd = 0, .output_fd = 1});
  if (text == "pty") return ConsoleSpec(PtyConsole{});
  if (text == "null") return ConsoleSpec(NullConsole{});
  const auto colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (kind == "file" || kind == "unix") {
    const std::string path(colon == std::string_view::npos ? "" : text.substr(colon + 1));
    if (path.empty()) return fail(ErrorCode::kBadConfig, "'{}' lacks a path: {}:PATH", text, kind);
    if (kind == "file") return ConsoleSpec(FileConsole{path});
    return ConsoleSpec(UnixConsole{path});
  }
  return fail(ErrorCode::kBadConfig, "'{}' is not one of stdio, file:PATH, pty, unix:PATH, null",
              text);
}

Result<WatchdogConfig> parse_watchdog(std::string_view text) {
  if (text.empty()) return WatchdogConfig{};
  const auto pair = key_value(text);
  if (!pair || pair->first != "action") {
    return fail(ErrorCode::kBadConfig, "'{}' is unknown: action=ACTION is known", text);
  }
  return WatchdogConfig{.action = VMM_TRY(word(pair->second, kWatchdogActions))};
}

Result<QuirkOverride> parse_quirk(std::string_view text) {
  const auto pair = key_value(text);
  if (!pair) return fail(ErrorCode::kBadConfig, "'{}' is not NAME=on, NAME=off or NAME=auto", text);
  const auto& [name, value] = *pair;
  if (std::find(kQuirkNames.begin(), kQuirkNames.end(), name) == kQuirkNames.end()) {
    return fail(ErrorCode::kBadConfig, "'{}' is not a quirk; there are {}", name,
                join(kQuirkNames, ", "));
  }
  return QuirkOverride{std::string(name), VMM_TRY(word(value, kToggles))};
}

namespace {

// How much later than UTC the host's zone is now.
std::chrono::seconds zone_offset(std::chrono::seconds now) {
  const auto time = static_cast<std::time_t>(now.count());
  std::tm local{};
  if (::localtime_r(&time, &local) == nullptr) return std::chrono::seconds(0);
  return std::chrono::seconds(local.tm_gmtoff);
}

// The digits of `text`, all of it, as a number.
std::optional<unsigned> digits(std::string_view text) {
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value;
}

// Seconds since the epoch of YYYY-MM-DD, with Thh:mm:ss if wanted.
std::optional<std::chrono::seconds> parse_date(std::string_view text) {
  constexpr std::string_view kDay = "dddd-dd-dd", kSecond = "dddd-dd-ddTdd:dd:dd";
  const std::string_view form = text.size() == kDay.size() ? kDay : kSecond;
  if (text.size() != form.size()) return std::nullopt;
  for (std::size_t i = 0; i < form.size(); ++i) {
    if (form[i] != 'd' && form[i] != text[i]) return std::nullopt;
  }
  const auto part = [&](std::size_t at, std::size_t size) {
    return form.size() <= at ? std::optional(0U) : digits(text.substr(at, size));
  };
  const auto year = part(0, 4), month = part(5, 2), day = part(8, 2), hour = part(11, 2),
             minute = part(14, 2), second = part(17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(*month), std::chrono::day(*day)};
  constexpr unsigned kFirstYear = 1970, kLastYear = 2199;
  if (!date.ok() || *year < kFirstYear || *year > kLastYear || *hour > 23 || *minute > 59 ||
      *second > 59) {
    return std::nullopt;
  }
  return std::chrono::sys_days(date).time_since_epoch() + std::chrono::hours(*hour) +
         std::chrono::minutes(*minute) + std::chrono::seconds(*second);
}

// strtod(3) reads more than decimal numbers. std::from_chars would not, but it alone would bring in
// the shared mathematics library, which every start would wait for.
std::optional<double> parse_decimal(std::string_view text) {
  const std::string number(text);
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || number.find_first_not_of("0123456789.eE+-") != std::string::npos ||
      number.front() == '+' || end != number.c_str() + number.size()) {
    return std::nullopt;
  }
  return value;
}

// Not 0: a command's guest has nobody who would move its time.
Result<double> parse_rate(std::string_view text) {
  const std::optional<double> rate = parse_decimal(text);
  if (rate && *rate >= ClockConfig::kLeastRate && *rate <= ClockConfig::kMostRate) return *rate;
  return fail(ErrorCode::kBadConfig,
              "'{}' is no rate of a clock: {} to {} seconds in one of the host's", text,
              ClockConfig::kLeastRate, ClockConfig::kMostRate);
}

}  // namespace

Result<ClockConfig> parse_clock(std::string_view text, std::chrono::seconds now) {
  constexpr std::string_view kBase = "base=", kRate = "rate=";
  ClockConfig clock;
  for (const std::string_view part : split(text, ',')) {
    if (part == "host" || part == "frozen") {
      clock.frozen = part == "frozen";
    } else if (part == "base=utc") {
      clock.ahead = std::chrono::seconds(0);
    } else if (part == "base=localtime") {
      clock.ahead = zone_offset(now);
    } else if (const auto date =
                   part.starts_with(kBase) ? parse_date(part.substr(kBase.size())) : std::nullopt) {
      clock.ahead = *date - now;
    } else if (part.starts_with(kRate)) {
      clock.rate = VMM_TRY(parse_rate(part.substr(kRate.size())));
    } else {
      return fail(
          ErrorCode::kBadConfig,
          "'{}' is not host, frozen, base=utc, base=localtime, base= with a date of 1970 to 2199 "
          "like 2026-01-31T23:59:59, or rate= with a number",
          part);
    }
  }
  return clock;
}

Result<std::chrono::nanoseconds> parse_seconds(std::string_view text) {
  constexpr double kMost = 1e9;  // 31 years: further than a clock has to count
  const std::optional<double> seconds = parse_decimal(text);
  if (!seconds) return fail(ErrorCode::kBadConfig, "'{}' is not a number of seconds", text);
  if (!(*seconds > 0 && *seconds <= kMost)) {
    return fail(ErrorCode::kBadConfig, "{} seconds are not possible: more than 0, at most {:.0f}",
                text, kMost);
  }
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(*seconds));
}

Result<std::vector<std::uint32_t>> parse_io_threads(std::string_view text) {
  std::vector<std::uint32_t> threads;
  for (const std::string_view part : split(text, ':')) {
    const std::uint64_t thread = VMM_TRY(parse_number(part, kMostIoThreads));
    if (thread == 0) return fail(ErrorCode::kBadConfig, "I/O threads are counted from 1");
    threads.push_back(static_cast<std::uint32_t>(thread));
  }
  return threads;
}

Result<EscapeChoice> parse_escape(std::string_view text) {
  if (text == "on") return EscapeChoice{.enabled = true};
  if (text == "off") return EscapeChoice{.enabled = false};
  std::string_view key = text;
  if (key.size() == 2 && key.front() == '^') key.remove_prefix(1);
  if (key.size() == 3 && key.starts_with("C-")) key.remove_prefix(2);
  if (key.size() != 1 || std::isalpha(static_cast<unsigned char>(key.front())) == 0) {
    return fail(ErrorCode::kBadConfig,
                "'{}' is neither on nor off nor a key: write ^T or t for Ctrl-T", text);
  }
  return EscapeChoice{.enabled = true, .key = static_cast<std::byte>(key.front() & 0x1f)};
}

}  // namespace vmm::cli

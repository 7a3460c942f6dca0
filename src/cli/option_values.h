// From the text of one option's value to what it means. Errors: kBadConfig, saying what is wrong
// with the text and what would be right; the caller adds the option's name.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/console/console_backend.h"

namespace vmm::cli {

// --boot auto | linux64 | bzimage | pvh | multiboot | multiboot2 |
//        flat[,addr=ADDR][,mode=real|protected|long]
struct BootChoice {
  BootProtocol protocol = BootProtocol::kAuto;
  Gpa address{0x1000};              // flat only
  FlatMode mode = FlatMode::kLong;  // flat only
};
Result<BootChoice> parse_boot(std::string_view text);

// --module FILE[,ARGUMENTS]; the arguments may contain commas.
Result<BootModule> parse_module(std::string_view text);

// --fw-cfg name=NAME,file=PATH | name=NAME,string=TEXT; the text may contain commas.
Result<FwCfgFile> parse_fw_cfg(std::string_view text);

// --uuid 01234567-89ab-cdef-0123-456789abcdef
Result<std::array<std::uint8_t, 16>> parse_uuid(std::string_view text);

// --cpu host[,-feature | ,+feature]...; keeps `count`.
Result<CpuConfig> parse_cpu(std::string_view text, std::uint32_t count);

// --serial stdio | file:PATH | pty | unix:PATH | null
Result<ConsoleSpec> parse_serial(std::string_view text);

// --watchdog [action=reset|poweroff|panic|stop|none]; an empty text has the default.
Result<WatchdogConfig> parse_watchdog(std::string_view text);

// --quirk name=on|off|auto
Result<QuirkOverride> parse_quirk(std::string_view text);

// --clock [host | frozen][,base=utc | ,base=localtime | ,base=DATE][,rate=FACTOR], where a DATE is
// 2026-01-31 or 2026-01-31T23:59:59, in UTC. `now` is the host's UTC.
Result<ClockConfig> parse_clock(std::string_view text, std::chrono::seconds now);

// --timeout: seconds, with a decimal fraction if wanted; more than 0.
Result<std::chrono::nanoseconds> parse_seconds(std::string_view text);

// A whole number, decimal or with 0x, at most `most`.
Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t most);

// A device's iothread=N[:N]...: threads for its queues in turn, numbers from 1 to 64, as many as
// there can be.
inline constexpr std::uint32_t kMostIoThreads = 64;
Result<std::vector<std::uint32_t>> parse_io_threads(std::string_view text);

// --escape on | off | KEY, where a KEY is Ctrl with a letter: ^T, C-t or t.
struct EscapeChoice {
  std::optional<bool> enabled;
  std::byte key{0x01};
};
Result<EscapeChoice> parse_escape(std::string_view text);

// The value of a word, or an error that lists the words.
template <typename T>
Result<T> parse_word(std::string_view text, std::span<const std::pair<std::string_view, T>> words) {
  std::string all;
  for (const auto& [word, value] : words) {
    if (word == text) return value;
    if (!all.empty()) all += ", ";
    all += word;
  }
  return fail(ErrorCode::kBadConfig, "'{}' is not one of {}", text, all);
}

// "a,b,c" in its parts; an empty text has one empty part.
std::vector<std::string_view> split(std::string_view text, char separator);

}  // namespace vmm::cli

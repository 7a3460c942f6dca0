// Logging: injected, silent by default, and bounded where a guest could cause it.
//
// Errors are returned, not logged; a log line is for what nobody could return ("the initrd was
// unpacked on the host").
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace vmm {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning };

// Receives finished lines, from any thread; must not block for long. `category` is the module
// ("kvm", "boot", "uart").
using LogSink = std::function<void(LogLevel, std::string_view category, std::string_view line)>;

// A handle that a component keeps; cheap to copy. Default-constructed: drops everything.
class Log {
 public:
  Log() = default;
  Log(LogSink sink, LogLevel least) : sink_(std::move(sink)), least_(least) {}

  bool enabled(LogLevel level) const noexcept { return sink_ && level >= least_; }

  template <typename... Args>
  void operator()(LogLevel level, std::string_view category, fmt::format_string<Args...> format,
                  Args&&... args) const {
    if (enabled(level)) sink_(level, category, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  LogSink sink_;
  LogLevel least_ = LogLevel::kWarning;
};

// Lets through at most `burst` events a second and counts the rest. One for each guest-reachable
// log site. Any thread.
class RateLimit {
 public:
  explicit RateLimit(std::uint32_t burst = 5) : burst_(burst) {}

  // True when this event may be logged; `suppressed` is then how many were swallowed since the last
  // one that was.
  bool allow(std::uint64_t* suppressed) noexcept;

 private:
  const std::uint32_t burst_;
  std::atomic<std::int64_t> window_{0};  // second since the steady clock's epoch
  std::atomic<std::uint32_t> used_{0};
  std::atomic<std::uint64_t> swallowed_{0};
};

}  // namespace vmm

// Logs what a guest can cause, rate-limited by `limiter` (a RateLimit that lives as long as the
// site's object).
#define VMM_LOG_GUEST(log, limiter, category, ...)                                         \
  do {                                                                                     \
    std::uint64_t vmm_suppressed = 0;                                                      \
    if ((log).enabled(::vmm::LogLevel::kWarning) && (limiter).allow(&vmm_suppressed)) {    \
      (log)(::vmm::LogLevel::kWarning, category, __VA_ARGS__);                             \
      if (vmm_suppressed != 0)                                                             \
        (log)(::vmm::LogLevel::kWarning, category, "({} more like this)", vmm_suppressed); \
    }                                                                                      \
  } while (false)

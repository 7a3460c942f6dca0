#include "vmm/run_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <utility>

namespace vmm {

// A text that is looked for in a stream of bytes (Knuth, Morris and Pratt).
struct RunWatch::Text {
  std::size_t index;
  std::string text;
  std::vector<std::size_t> fallback = {};  // by characters matched: how many still do
  std::size_t matched = 0;

  Text(std::size_t which, std::string wanted) : index(which), text(std::move(wanted)) {
    fallback.assign(text.size() + 1, 0);
    for (std::size_t i = 1, k = 0; i < text.size(); ++i) {
      while (k > 0 && text[i] != text[k]) k = fallback[k];
      if (text[i] == text[k]) ++k;
      fallback[i + 1] = k;
    }
  }

  bool take(char c) {
    while (matched > 0 && text[matched] != c) matched = fallback[matched];
    if (text[matched] == c) ++matched;
    if (matched < text.size()) return false;
    matched = fallback[matched];
    return true;
  }
};

struct RunWatch::Line {
  std::size_t index;
  std::regex pattern;

  bool matches(const std::string& line) const {
    try {
      return std::regex_search(line, pattern);
    } catch (const std::regex_error&) {
      return false;  // too much work for the library: no match
    }
  }
};

struct RunWatch::Exit {
  std::size_t index;
  std::size_t kind;
  std::optional<std::uint64_t> address;

  bool matches(const VcpuExit& exit) const {
    if (exit.index() != kind) return false;
    if (!address) return true;
    if (const auto* pio = std::get_if<PioExit>(&exit)) return pio->port == *address;
    if (const auto* mmio = std::get_if<MmioExit>(&exit)) return mmio->address.value == *address;
    return false;
  }
};

RunWatch::RunWatch(StopBoard& stops) : stops_(stops) {}
RunWatch::~RunWatch() = default;

Result<std::unique_ptr<RunWatch>> RunWatch::create(StopBoard& stops,
                                                   const std::vector<Condition>& conditions) {
  std::unique_ptr<RunWatch> watch(new RunWatch(stops));
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    VMM_TRY(with_context(watch->add(i, conditions[i]), fmt::format("Wait for condition {}", i)));
  }
  return watch;
}

Result<void> RunWatch::add(std::size_t index, const Condition& condition) {
  if (const auto* text = std::get_if<UntilConsole>(&condition)) {
    if (text->text.empty()) return fail(ErrorCode::kBadConfig, "An empty text on the console");
    texts_.emplace_back(index, text->text);
  } else if (const auto* line = std::get_if<UntilConsoleMatches>(&condition)) {
    try {
      // Libstdc++'s polynomial matcher: neither its time nor its stack is the guest's to choose.
      lines_.push_back({index, std::regex(line->pattern, std::regex_constants::ECMAScript |
                                                             std::regex_constants::__polynomial)});
    } catch (const std::regex_error& error) {
      return fail(ErrorCode::kBadConfig, "'{}' is no regular expression that can be used: {}",
                  line->pattern, error.what());
    }
  } else if (const auto* exit = std::get_if<UntilExit>(&condition)) {
    const auto name = std::find(kExitNames.begin(), kExitNames.end(), exit->kind);
    if (name == kExitNames.end()) {
      return fail(ErrorCode::kBadConfig, "There is no kind of exit '{}'", exit->kind);
    }
    if (exit->address && exit->kind != "pio" && exit->kind != "mmio") {
      return fail(ErrorCode::kBadConfig, "An exit of the kind '{}' has no address", exit->kind);
    }
    exits_.push_back({index, static_cast<std::size_t>(name - kExitNames.begin()), exit->address});
  } else if (const auto* count = std::get_if<UntilExitCount>(&condition)) {
    if (count->count == 0) return fail(ErrorCode::kBadConfig, "0 exits to wait for");
    counts_.push_back({index, count->count});
  } else if (const auto* own = std::get_if<UntilTrue>(&condition)) {
    if (!own->predicate || own->interval <= std::chrono::milliseconds(0)) {
      return fail(ErrorCode::kBadConfig, "No predicate, or no interval between its calls");
    }
  }
  return {};
}

void RunWatch::on_exit(VcpuId vcpu, const VcpuExit& exit) {
  for (const Exit& wanted : exits_) {
    if (!wanted.matches(exit)) continue;
    const std::lock_guard lock(mutex_);
    meet(wanted.index, vcpu);
  }
  if (counts_.empty() || std::holds_alternative<InterruptedExit>(exit)) return;
  const std::uint64_t seen = exits_seen_.fetch_add(1, std::memory_order_relaxed) + 1;
  for (const Count& count : counts_) {
    if (seen < count.wanted) continue;
    const std::lock_guard lock(mutex_);
    meet(count.index, vcpu);
  }
}

void RunWatch::on_stop(const debug::StopEvent& event) {
  const std::lock_guard lock(mutex_);
  const StopInfo stop{.reason = StopReason::kCondition, .vcpu = VcpuId{event.cpu}};
  if (stops_.post(stop)) event_ = event;
}

void RunWatch::meet(std::size_t index, VcpuId vcpu) {
  if (stops_.post(StopInfo{.reason = StopReason::kCondition,
                           .vcpu = vcpu,
                           .detail = fmt::format("condition {} was met", index)})) {
    met_ = index;
  }
}

void RunWatch::keep(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) console_.push_back(static_cast<char>(byte));
  // Seldom, and then half of it: moving the rest costs little for each byte.
  if (console_.size() > 2 * kConsoleLimit) console_.erase(0, console_.size() - kConsoleLimit);
}

void RunWatch::write(std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  keep(bytes);
  const auto look_at_line = [this] {
    for (const Line& wanted : lines_) {
      if (wanted.matches(line_)) meet(wanted.index, VcpuId{0});
    }
  };
  for (const std::byte byte : bytes) {
    const char c = static_cast<char>(byte);
    for (Text& wanted : texts_) {
      if (wanted.take(c)) meet(wanted.index, VcpuId{0});
    }
    if (lines_.empty()) continue;
    if (c == '\n') {
      look_at_line();
      line_.clear();
    } else if (c != '\r') {
      if (line_.size() == kLineLimit) line_.erase(0, 1);
      line_.push_back(c);
    }
  }
  if (!line_.empty()) look_at_line();
}

std::optional<std::size_t> RunWatch::met() const {
  const std::lock_guard lock(mutex_);
  return met_;
}

std::optional<debug::StopEvent> RunWatch::take_event() {
  const std::lock_guard lock(mutex_);
  return std::exchange(event_, std::nullopt);
}

std::string RunWatch::console() const {
  const std::lock_guard lock(mutex_);
  return console_.size() <= kConsoleLimit ? console_
                                          : console_.substr(console_.size() - kConsoleLimit);
}

}  // namespace vmm

#include "devices/virtio/balloon.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "devices/state_io.h"
#include "memory/discard.h"

namespace vmm::virtio {
namespace {

// Section 5.5.4.
struct Config {
  Le32 num_pages;
  Le32 actual;
};
static_assert(sizeof(Config) == Balloon::kConfigSize);
constexpr std::uint32_t kActualOffset = 4;
static_assert(offsetof(Config, actual) == kActualOffset);

// Section 5.5.6.3.
struct Stat {
  Le16 tag;
  Le64 value;
};
static_assert(sizeof(Stat) == 10);

// No driver has so many; more are not looked at.
constexpr int kMostStats = 64;
// Where a range is cut between two turns, so that no page of any backing is lost to the cut.
constexpr std::uint64_t kCut = MiB(2);

std::uint32_t pages_of(std::uint64_t bytes) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(bytes / Balloon::kPageSize, kMost));
}

std::uint64_t features_for(const Balloon::Options& options) {
  std::uint64_t features = Balloon::kMustTellHost;
  if (options.statistics) features |= Balloon::kStatsVq;
  if (options.deflate_on_oom) features |= Balloon::kDeflateOnOom;
  if (options.free_page_reporting) features |= Balloon::kPageReporting;
  return features;
}

std::size_t queues_for(const Balloon::Options& options) {
  if (options.free_page_reporting) return Balloon::kReporting + 1;
  return options.statistics ? Balloon::kStats + 1 : Balloon::kDeflate + 1;
}

}  // namespace

// What may still be done before others have their turn.
struct Balloon::Turn {
  std::uint32_t calls = kMostCalls;
  std::uint64_t bytes = kMostBytes;

  bool over() const noexcept { return calls == 0 || bytes == 0; }
};

Balloon::Balloon(std::string id, const Options& options)
    : s_{.target = pages_of(options.size)},
      id_(std::move(id)),
      offered_(features_for(options)),
      queue_sizes_(queues_for(options), kQueueSize) {}

void Balloon::set_target(std::uint64_t bytes) {
  const std::uint32_t pages = pages_of(bytes);
  if (std::exchange(s_.target, pages) != pages) host().config_changed();
}

void Balloon::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  const Config config{.num_pages = s_.target, .actual = s_.actual};
  const auto bytes = std::as_bytes(std::span(&config, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

// Section 5.5.4: only `actual` is the driver's.
void Balloon::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  if (offset != kActualOffset || data.size() != sizeof(Le32)) return;
  s_.actual = static_cast<std::uint32_t>(load_le(data));
}

void Balloon::activate(std::uint64_t features) {
  negotiated_ = features;
  s_.reporting_queue = 0;
  if (!has(kPageReporting)) return;
  const std::uint16_t counted = has(kStatsVq) ? kStats + 1 : kStats;
  s_.reporting_queue = host().queue(kReporting).enabled() ? kReporting : counted;
}

bool Balloon::process(std::uint16_t queue) {
  bool more = false;
  if (queue == kInflate) {
    more = give_back(queue, s_.inflating,
                     [this](Work& work, Turn& turn) { return inflate(work, turn); });
  } else if (queue == kDeflate) {
    // The pages are the driver's from now on, which takes nothing.
    more =
        drain(queue, chain_, [&](const Chain& chain) { host().queue(queue).push_used(chain, 0); });
  } else if (is_stats(queue)) {
    more = drain(queue, chain_, [this](Chain& chain) { take_stats(chain); });
  } else if (queue == s_.reporting_queue) {
    more = give_back(queue, s_.reporting,
                     [this](Work& work, Turn& turn) { return report(work, turn); });
  }
  host().used(queue);
  return more;
}

template <typename Step>
bool Balloon::give_back(std::uint16_t index, std::optional<Work>& work, Step step) {
  Queue& queue = host().queue(index);
  Turn turn;
  std::uint32_t left = queue.size();
  do {
    queue.disable_notifications();
    for (; left != 0; --left) {
      if (!work) {
        if (!queue.pop(chain_)) break;
        work.emplace(Work{.chain = std::exchange(chain_, {})});
      }
      if (!step(*work, turn)) return true;
      queue.push_used(work->chain, 0);
      chain_ = std::exchange(work->chain, {});
      work.reset();
    }
    if (left == 0) return true;
  } while (queue.enable_notifications());
  return false;
}

// Page numbers, 32 bits each (section 5.5.6).
bool Balloon::inflate(Work& work, Turn& turn) {
  const GuestMemory& memory = host().memory();
  ChainReader reader(memory, work.chain);
  reader.skip(work.done);
  const std::uint64_t waiting = reader.remaining() / sizeof(Le32);
  numbers_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(waiting, turn.calls)));
  reader.read(std::as_writable_bytes(std::span(numbers_)));
  pages_.assign(numbers_.begin(), numbers_.end());
  std::sort(pages_.begin(), pages_.end());
  pages_.erase(std::unique(pages_.begin(), pages_.end()), pages_.end());
  // Neighbours together: one system call, and one page of a backing with large ones.
  const auto is_ram = [&](std::uint32_t page) {
    return memory.contains(*GpaRange::create(Gpa(page * kPageSize), kPageSize));
  };
  for (std::size_t i = 0; i < pages_.size();) {
    std::size_t end = i;
    while (end < pages_.size() && pages_[end] == pages_[i] + (end - i) && is_ram(pages_[end])) {
      ++end;
    }
    if (end == i) {
      ++counters_.refused_pages;
      ++i;
      continue;
    }
    discard(pages_[i] * kPageSize, (end - i) * kPageSize, counters_.inflated_bytes);
    i = end;
  }
  work.done += numbers_.size() * sizeof(Le32);
  turn.calls -= static_cast<std::uint32_t>(numbers_.size());
  return numbers_.size() == waiting;
}

// Ranges of free memory, as the buffers of a request (section 5.5.6.7).
bool Balloon::report(Work& work, Turn& turn) {
  std::uint64_t before = 0;  // bytes of the segments that are done
  for (const Segment& segment : work.chain.writable_segments()) {
    while (work.done < before + segment.length) {
      if (turn.over()) return false;
      const std::uint64_t address = segment.address + (work.done - before);
      const std::uint64_t rest = segment.length - (work.done - before);
      std::uint64_t size = rest;
      if (rest > turn.bytes) {
        const std::uint64_t cut = align_down(address + turn.bytes, kCut);
        if (cut <= address) return false;  // a whole turn always gets further
        size = cut - address;
      }
      discard(address, size, counters_.reported_bytes);
      work.done += size;
      turn.bytes -= size;
      --turn.calls;
    }
    before += segment.length;
  }
  return true;
}

void Balloon::discard(std::uint64_t address, std::uint64_t size, std::uint64_t& bytes) {
  const auto range = GpaRange::create(Gpa(address), size);
  if (!range) return;
  const Result<std::uint64_t> gone = vmm::discard(host().memory(), *range);
  if (gone) {
    bytes += *gone;
  } else {
    counters_.refused_pages += size / kPageSize;
  }
}

// The driver has one buffer, which waits here until new numbers are wanted.
void Balloon::take_stats(Chain& chain) {
  if (s_.stats_buffer) host().queue(kStats).push_used(*s_.stats_buffer, 0);
  s_.stats = {};
  ChainReader reader(host().memory(), chain);
  Stat stat;
  for (int left = kMostStats; left != 0 && reader.read(stat); --left) {
    if (stat.tag < s_.stats.size()) s_.stats[stat.tag] = stat.value;
  }
  ++counters_.stats_received;
  s_.stats_buffer = std::exchange(chain, {});
}

void Balloon::request_stats() {
  if (!s_.stats_buffer || !host().active()) return;
  host().queue(kStats).push_used(*s_.stats_buffer, 0);
  s_.stats_buffer.reset();
  host().used(kStats);
}

// What the host wants is no driver's to forget.
bool Balloon::reset() {
  s_ = State{.target = s_.target};
  negotiated_ = 0;
  return true;
}

bool Balloon::reset_queue(std::uint16_t queue) {
  if (queue == kInflate) s_.inflating.reset();
  if (queue == s_.reporting_queue) s_.reporting.reset();
  if (queue == kStats) s_.stats_buffer.reset();
  return true;
}

void Balloon::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Balloon::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  const bool reports = (features & kPageReporting) != 0;
  const bool stats = (features & kStatsVq) != 0;
  const std::uint16_t first = stats ? kStats + 1 : kStats;
  const std::uint16_t queue = state.reporting_queue;
  if (queue != 0 && (!reports || queue < first || queue > kReporting)) {
    return fail(ErrorCode::kBadState, "Queue {} of a balloon cannot have reports", queue);
  }
  if ((state.reporting && queue == 0) || (state.stats_buffer && !stats)) {
    return fail(ErrorCode::kBadState, "A balloon has a request of a queue that is not in use");
  }
  if (state.inflating) VMM_TRY(host().queue(kInflate).readmit(state.inflating->chain));
  if (state.reporting) VMM_TRY(host().queue(queue).readmit(state.reporting->chain));
  if (state.stats_buffer) VMM_TRY(host().queue(kStats).readmit(*state.stats_buffer));
  s_ = std::move(state);
  negotiated_ = active ? features : 0;
  return {};
}

}  // namespace vmm::virtio

#include "devices/virtio/mem.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

// Section 5.15.4.
struct Config {
  Le64 block_size;
  Le16 node_id;
  std::array<std::uint8_t, 6> padding{};
  Le64 addr;
  Le64 region_size;
  Le64 usable_region_size;
  Le64 plugged_size;
  Le64 requested_size;
};
static_assert(sizeof(Config) == Mem::kConfigSize);

constexpr std::array<std::uint16_t, 1> kQueues{Mem::kQueueSize};

}  // namespace

// Section 5.15.6: the same layout for all types that have a range.
struct Mem::Request {
  Le16 type;
  std::array<std::uint8_t, 6> padding0{};
  Le64 addr;
  Le16 nb_blocks;
  std::array<std::uint8_t, 6> padding1{};
};

struct Mem::Answer {
  Le16 type = kError;
  std::array<std::uint8_t, 6> padding{};
  Le16 state = std::uint16_t{0};
};

Mem::Mem(std::string id, Gpa base, MemoryBlocks& memory, std::uint64_t requested)
    : id_(std::move(id)), base_(base), memory_(memory), requested_(requested) {}

std::span<const std::uint16_t> Mem::queue_sizes() const noexcept { return kQueues; }

void Mem::set_requested(std::uint64_t bytes) {
  if (std::exchange(requested_, bytes) != bytes) host().config_changed();
}

void Mem::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  Config config;
  config.block_size = memory_.block_size();
  config.addr = base_.value;
  config.region_size = memory_.size();
  config.usable_region_size = memory_.size();
  config.plugged_size = plugged();
  config.requested_size = requested_;
  std::memcpy(data.data(), std::as_bytes(std::span(&config, 1)).data() + offset, data.size());
}

bool Mem::is_plugged(std::uint32_t block) const noexcept {
  return memory_.plugged(block, 1) == MemoryBlocks::Plugged::kAll;
}

template <typename Fn>
std::vector<Mem::Run> Mem::runs_where(Fn&& fn) const {
  std::vector<Run> runs;
  std::uint32_t end = 0;
  for (std::uint32_t i = 0; i < memory_.count(); ++i) {
    if (!fn(i)) continue;
    if (runs.empty() || end != i) runs.push_back({.first = i});
    ++runs.back().count;
    end = i + 1;
  }
  return runs;
}

std::vector<Mem::Run> Mem::plugged_runs() const {
  return runs_where([this](std::uint32_t i) { return is_plugged(i); });
}

bool Mem::process(std::uint16_t index) {
  Queue& queue = host().queue(index);
  std::uint64_t budget = kMostBytes;
  std::uint32_t left = queue.size();
  bool over = false;
  do {
    queue.disable_notifications();
    while (!over && left != 0 && (going_ || queue.pop(chain_))) {
      if (!going_) going_.emplace(std::exchange(chain_, {}));
      over = !advance(budget);
      if (!over) --left;
    }
  } while (!over && left != 0 && queue.enable_notifications());
  host().used(index);
  return over || left == 0;
}

// Memory that was withdrawn goes before the next request is judged, and before an UNPLUG is
// acknowledged: never is more in use than the driver was granted.
bool Mem::advance(std::uint64_t& budget) {
  if (!release(budget)) return false;
  Answer verdict{.type = kAck};
  if (!acknowledged_) {
    verdict = judge(*going_);
    acknowledged_ = !releasing_.empty();
    if (!release(budget)) return false;
  }
  const Chain chain = *std::exchange(going_, std::nullopt);
  acknowledged_ = false;
  if (verdict.type != kAck) ++counters_.refused;
  ChainWriter writer(host().memory(), chain);
  writer.write(std::as_bytes(std::span(&verdict, 1)));
  host().queue(0).push_used(chain, writer.written());
  return true;
}

Mem::Answer Mem::judge(const Chain& chain) {
  ChainReader reader(host().memory(), chain);
  Request request;
  // UNPLUG_ALL may come without the range that the others have.
  const std::size_t size = reader.read(std::as_writable_bytes(std::span(&request, 1)));
  const bool whole = size == sizeof request;
  if (size < sizeof request.type || (!whole && request.type != kUnplugAll)) return {};
  switch (request.type) {
    case kPlug:
      return plug(request);
    case kUnplug:
      return unplug(request);
    case kUnplugAll:
      return {.type = withdraw(plugged_runs()) ? kAck : kBusy};
    case kState:
      return state_of(request);
    default:
      return {};
  }
}

std::optional<Mem::Run> Mem::blocks_of(const Request& request) const {
  const std::uint64_t address = request.addr;
  const std::uint32_t count = std::uint16_t{request.nb_blocks};
  if (address < base_.value || count == 0) return std::nullopt;
  const std::uint64_t offset = address - base_.value;
  const std::uint64_t first = offset / memory_.block_size();
  if (offset % memory_.block_size() != 0 || first >= memory_.count() ||
      count > memory_.count() - first) {
    return std::nullopt;
  }
  return Run{static_cast<std::uint32_t>(first), count};
}

Mem::Answer Mem::plug(const Request& request) {
  const auto run = blocks_of(request);
  if (!run || memory_.plugged(run->first, run->count) != MemoryBlocks::Plugged::kNone) return {};
  if (plugged() + run->count * memory_.block_size() > requested_) return {.type = kNack};
  // What the host lacks now it may have later.
  return {.type = memory_.plug(run->first, run->count) ? kAck : kBusy};
}

Mem::Answer Mem::unplug(const Request& request) {
  const auto run = blocks_of(request);
  if (!run || memory_.plugged(run->first, run->count) != MemoryBlocks::Plugged::kAll) return {};
  return {.type = withdraw(std::span(&*run, 1)) ? kAck : kBusy};
}

Mem::Answer Mem::state_of(const Request& request) const {
  const auto run = blocks_of(request);
  if (!run) return {};
  const auto plugged = memory_.plugged(run->first, run->count);
  return {.type = kAck,
          .state = plugged == MemoryBlocks::Plugged::kAll    ? kPlugged
                   : plugged == MemoryBlocks::Plugged::kNone ? kUnplugged
                                                             : kMixed};
}

bool Mem::withdraw(std::span<const Run> runs) {
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (memory_.withdraw(runs[i].first, runs[i].count)) continue;
    // Nothing of it has been touched yet.
    for (const Run& run : runs.first(i)) memory_.undo_withdraw(run.first, run.count);
    return false;
  }
  for (const Run& run : runs) {
    const std::uint64_t begin = run.first * memory_.block_size();
    releasing_.push_back({begin, begin + run.count * memory_.block_size()});
  }
  return true;
}

bool Mem::release(std::uint64_t& budget) {
  while (!releasing_.empty() && budget != 0) {
    Bytes& next = releasing_.back();
    const std::uint64_t size = std::min(next.end - next.begin, budget);
    if (!memory_.release(next.begin, size)) counters_.unreleased += size;
    budget -= size;
    next.begin += size;
    if (next.begin == next.end) releasing_.pop_back();
  }
  return releasing_.empty();
}

// The memory stays as it is: a driver that comes back asks for its state, or unplugs all.
bool Mem::reset() {
  going_.reset();
  acknowledged_ = false;
  return true;
}

bool Mem::reset_queue(std::uint16_t) { return reset(); }

void Mem::save(StateWriter& writer) const {
  writer.put(State{.requested = requested_,
                   .plugged = plugged_runs(),
                   .going = going_,
                   .acknowledged = acknowledged_});
}

Result<void> Mem::restore(const StateReader& reader, bool, std::uint64_t) {
  State state = VMM_TRY(reader.get<State>());
  if (state.requested > memory_.size() || state.requested % memory_.block_size() != 0) {
    return fail(ErrorCode::kBadState, "{} bytes of memory to plug do not fit a region of {}",
                state.requested, memory_.size());
  }
  std::uint64_t end = 0;
  for (const Run& run : state.plugged) {
    if (run.count == 0 || run.first < end || run.first >= memory_.count() ||
        run.count > memory_.count() - run.first) {
      return fail(ErrorCode::kBadState, "Blocks {}+{} of {} cannot be plugged", run.first,
                  run.count, memory_.count());
    }
    end = std::uint64_t{run.first} + run.count + 1;
  }
  if (state.acknowledged && !state.going) {
    return fail(ErrorCode::kBadState, "A request for memory was acknowledged that is not there");
  }
  if (state.going) VMM_TRY(host().queue(0).readmit(*state.going));
  VMM_TRY(replug(state.plugged));
  requested_ = state.requested;
  going_ = std::move(state.going);
  acknowledged_ = state.acknowledged;
  return {};
}

// The machine is at rest. Blocks that stay plugged keep what they hold.
Result<void> Mem::replug(std::span<const Run> wanted) {
  std::uint64_t all = memory_.size();
  (void)release(all);
  std::vector<bool> want(memory_.count());
  for (const Run& run : wanted) {
    std::fill_n(want.begin() + run.first, run.count, true);
  }
  const std::vector<Run> gone =
      runs_where([&](std::uint32_t i) { return is_plugged(i) && !want[i]; });
  const std::vector<Run> come =
      runs_where([&](std::uint32_t i) { return !is_plugged(i) && want[i]; });
  if (!withdraw(gone)) return fail(ErrorCode::kBadState, "Blocks of memory are still in use");
  for (std::size_t i = 0; i < come.size(); ++i) {
    auto plugged = memory_.plug(come[i].first, come[i].count);
    if (plugged) continue;
    releasing_.clear();
    for (const Run& run : gone) memory_.undo_withdraw(run.first, run.count);
    (void)withdraw(std::span(come).first(i));
    all = memory_.size();
    (void)release(all);
    return plugged;
  }
  all = memory_.size();
  (void)release(all);
  return {};
}

}  // namespace vmm::virtio

#include "devices/virtio/pmem.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

// Section 5.19.4.
struct Config {
  Le64 start;
  Le64 size;
};
static_assert(sizeof(Config) == Pmem::kConfigSize);

constexpr std::array<std::uint16_t, 1> kQueues{Pmem::kQueueSize};

}  // namespace

Pmem::Pmem(std::string id, GpaRange range, std::shared_ptr<PmemBackend> backend)
    : id_(std::move(id)), range_(range), backend_(std::move(backend)) {}

// The next machine that has the backend is to find it at rest.
Pmem::~Pmem() {
  backend_->wait();
  (void)backend_->take_result();
}

std::span<const std::uint16_t> Pmem::queue_sizes() const noexcept { return kQueues; }

void Pmem::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  const Config config{.start = range_.base().value, .size = range_.size()};
  const auto bytes = std::as_bytes(std::span(&config, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

bool Pmem::process(std::uint16_t queue) {
  const bool more = drain(queue, chain_, [this](Chain& chain) { take(chain); });
  start();
  host().used(queue);
  return more;
}

void Pmem::take(Chain& chain) {
  ChainReader reader(host().memory(), chain);
  Le32 type;
  if (!reader.read(type) || type != kFlush) return answer(chain, kIoError);
  s_.waiting.push_back(std::exchange(chain, {}));
}

void Pmem::answer(const Chain& chain, std::uint32_t status) {
  ChainWriter writer(host().memory(), chain);
  (void)writer.write(Le32(status));
  if (status == kOk) {
    ++counters_.flushes;
  } else {
    ++counters_.errors;
  }
  host().queue(0).push_used(chain, writer.written());
}

// All that wait share a flush: it began after the last of them came.
void Pmem::start() {
  if (under_way_ || s_.waiting.empty()) return;
  under_way_ = true;
  covered_ = s_.waiting.size();
  backend_->start_flush();
}

void Pmem::completed() {
  const std::optional<int> result = backend_->take_result();
  if (!result || !std::exchange(under_way_, false)) return;
  const auto end = s_.waiting.begin() + static_cast<std::ptrdiff_t>(std::exchange(covered_, 0));
  // What a broken device still owes, its driver does not wait for.
  if (host().active()) {
    for (auto chain = s_.waiting.begin(); chain != end; ++chain) {
      answer(*chain, *result == 0 ? kOk : kIoError);
    }
  }
  s_.waiting.erase(s_.waiting.begin(), end);
  if (!host().active()) return;
  host().used(0);
  start();
}

// A flush that is under way ends for nobody.
bool Pmem::reset() {
  s_ = State{};
  covered_ = 0;
  return true;
}

bool Pmem::reset_queue(std::uint16_t) { return reset(); }

void Pmem::save(StateWriter& writer) const {
  // Flushes that waited when the device broke are nobody's.
  writer.put(host().active() ? s_ : State{});
}

Result<void> Pmem::restore(const StateReader& reader, bool active, std::uint64_t) {
  State state = VMM_TRY(reader.get<State>());
  if (!active && !state.waiting.empty()) {
    return fail(ErrorCode::kBadState, "Flushes wait for a persistent memory that is not active");
  }
  if (state.waiting.size() > kQueueSize) {
    return fail(ErrorCode::kBadState, "More flushes wait than the queue has places");
  }
  for (Chain& chain : state.waiting) VMM_TRY(host().queue(0).readmit(chain));
  s_ = std::move(state);
  covered_ = 0;
  return {};
}

// A flush that another life began does not cover what these have written.
void Pmem::resume() { start(); }

}  // namespace vmm::virtio

#include "devices/virtio/rng.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {

Rng::Rng(std::string id, Source source) : id_(std::move(id)), source_(std::move(source)) {}

void Rng::activate(std::uint64_t) {}

bool Rng::process(std::uint16_t queue) {
  const bool more = drain(queue, chain_, [this](const Chain& chain) { answer(chain); });
  host().used(queue);
  return more;
}

void Rng::answer(const Chain& chain) {
  ChainWriter writer(host().memory(), chain);
  std::array<std::byte, 256> bytes;
  while (writer.remaining() != 0 && writer.written() < kMostBytes) {
    const auto part = std::span(bytes).first(static_cast<std::size_t>(
        std::min<std::uint64_t>(bytes.size(), kMostBytes - writer.written())));
    source_(part);
    writer.write(part);
  }
  s_.bytes += writer.written();
  host().queue(0).push_used(chain, writer.written());
}

bool Rng::reset() {
  s_ = State{};
  return true;
}

void Rng::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Rng::restore(const StateReader& reader, bool, std::uint64_t) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm::virtio

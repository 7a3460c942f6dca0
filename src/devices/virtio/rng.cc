#include "devices/virtio/rng.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {

Rng::Rng(std::string id, Source source) : id_(std::move(id)), source_(std::move(source)) {}

Rng::Rng(std::string id, std::uint64_t seed) : id_(std::move(id)), seed_(seed) {}

namespace {

// SplitMix64: the word of that number in the sequence of that seed.
std::uint64_t word_of(std::uint64_t seed, std::uint64_t number) noexcept {
  std::uint64_t z = seed + (number + 1) * 0x9e37'79b9'7f4a'7c15;
  z = (z ^ z >> 30) * 0xbf58'476d'1ce4'e5b9;
  z = (z ^ z >> 27) * 0x94d0'49bb'1331'11eb;
  return z ^ z >> 31;
}

}  // namespace

void Rng::fill(std::uint64_t given, std::span<std::byte> bytes) const {
  if (source_) return source_(bytes);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(word_of(seed_, given / 8) >> 8 * (given % 8));
    ++given;
  }
}

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
    fill(s_.bytes + writer.written(), part);
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

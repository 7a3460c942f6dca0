#include "vmm/vhost/peer_ring.h"

#include <atomic>
#include <cstring>

#include "devices/virtio/fence.h"
#include "devices/virtio/spec.h"

namespace vmm::vhost {
namespace {

struct Descriptor {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t flags;
  std::uint16_t next;
};
static_assert(sizeof(Descriptor) == virtio::kDescSize);

struct Used {
  std::uint32_t id;
  std::uint32_t written;
};

// Both rings: flags, index, entries.
constexpr std::size_t kFlags = 0, kIndex = 2, kEntries = 4;
static_assert(PeerRing::kAvailable >= PeerRing::kSize * sizeof(Descriptor));
static_assert(PeerRing::kUsed >= PeerRing::kAvailable + kEntries + 2 * PeerRing::kSize);
static_assert(PeerRing::kBytes >= PeerRing::kUsed + kEntries + sizeof(Used) * PeerRing::kSize);

std::atomic_ref<std::uint16_t> number_at(std::byte* at) {
  return std::atomic_ref<std::uint16_t>(*reinterpret_cast<std::uint16_t*>(at));
}

template <typename T>
void put(std::byte* at, const T& value) {
  std::memcpy(at, &value, sizeof value);
}

}  // namespace

PeerRing::PeerRing(std::byte* memory) : memory_(memory) { reset(); }

void PeerRing::reset() {
  std::memset(memory_, 0, kBytes);
  free_.clear();
  for (std::uint16_t i = kSize; i > 0; --i) free_.push_back(static_cast<std::uint16_t>(i - 1));
  next_.assign(kSize, 0);
  length_.assign(kSize, 0);
  available_ = used_ = under_way_ = 0;
}

std::optional<std::uint16_t> PeerRing::submit(const virtio::Chain& chain) {
  const std::size_t count = chain.segments.size();
  if (count == 0 || count > free_.size()) return std::nullopt;
  const std::uint16_t head = free_.back();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t index = free_.back();
    free_.pop_back();
    const bool last = i + 1 == count;
    next_[index] = last ? std::uint16_t{0} : free_.back();
    const int flags =
        (i >= chain.readable ? virtio::kDescWrite : 0) | (last ? 0 : virtio::kDescNext);
    put(memory_ + kDescriptors + virtio::kDescSize * index,
        Descriptor{chain.segments[i].address, chain.segments[i].length,
                   static_cast<std::uint16_t>(flags), next_[index]});
  }
  length_[head] = static_cast<std::uint16_t>(count);
  ++under_way_;
  put(memory_ + kAvailable + kEntries + 2 * (available_ % kSize), head);
  ++available_;
  number_at(memory_ + kAvailable + kIndex).store(available_, std::memory_order_release);
  return head;
}

bool PeerRing::wants_kick() const {
  // What is available has to be visible before the flag is looked at: the back-end sets it first
  // and looks then.
  virtio::full_fence();
  const auto flags = number_at(memory_ + kUsed + kFlags).load(std::memory_order_relaxed);
  return (flags & virtio::kUsedNoNotify) == 0;
}

Result<std::optional<virtio::RemotePeer::Done>> PeerRing::next_done() {
  const auto index = number_at(memory_ + kUsed + kIndex).load(std::memory_order_acquire);
  const auto waiting = static_cast<std::uint16_t>(index - used_);
  if (waiting == 0) return std::optional<virtio::RemotePeer::Done>();
  if (waiting > under_way_) {
    return fail(ErrorCode::kIo, "The back-end tells of {} answers to {} requests", waiting,
                under_way_);
  }
  Used used;
  std::memcpy(&used, memory_ + kUsed + kEntries + sizeof used * (used_ % kSize), sizeof used);
  if (used.id >= kSize || length_[used.id] == 0) {
    return fail(ErrorCode::kIo, "The back-end answers request {}, which there is not", used.id);
  }
  ++used_;
  --under_way_;
  const auto head = static_cast<std::uint16_t>(used.id);
  std::uint16_t descriptor = head;
  for (std::uint16_t left = length_[head]; left != 0; --left) {
    free_.push_back(descriptor);
    descriptor = next_[descriptor];
  }
  length_[head] = 0;
  return std::optional(virtio::RemotePeer::Done{head, used.written});
}

}  // namespace vmm::vhost

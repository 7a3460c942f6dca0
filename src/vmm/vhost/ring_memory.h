// The memory of a connection's rings, which the back-end maps, too, and their doorbells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/vhost/front_end.h"
#include "vmm/vhost/peer_ring.h"

namespace vmm::vhost {

// New for each connection: a back-end that is not wanted any more may still write into the old one.
// Sealed against being made smaller, which would take the mapping from under us.
class RingMemory {
 public:
  // What the region is called, in guest-physical and in the front-end's addresses: above all that a
  // guest can have.
  static constexpr std::uint64_t kAddress = std::uint64_t{1} << 47;

  static Result<RingMemory> create(std::uint16_t queues);
  RingMemory(RingMemory&& other) noexcept;
  RingMemory& operator=(RingMemory&& other) = delete;
  ~RingMemory();

  int fd() const noexcept { return fd_.get(); }
  MemoryRegion region() const noexcept;
  std::uint16_t queues() const noexcept { return static_cast<std::uint16_t>(rings_.size()); }
  PeerRing& ring(std::uint16_t queue) { return rings_[queue]; }
  const EventFd& kick(std::uint16_t queue) const { return kicks_[queue]; }
  // How the back-end is told of it; `call` and `error` are its ways to us.
  FrontEnd::Ring description(std::uint16_t queue, const EventFd& call, const EventFd& error) const;

 private:
  RingMemory(UniqueFd fd, std::byte* memory, std::size_t size)
      : fd_(std::move(fd)), memory_(memory), size_(size) {}
  UniqueFd fd_;
  std::byte* memory_;
  std::size_t size_;
  std::vector<PeerRing> rings_;
  std::vector<EventFd> kicks_;
};

}  // namespace vmm::vhost

// What the two ring formats share inside Queue.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/le.h"
#include "devices/virtio/queue.h"

namespace vmm::virtio {

// A descriptor of either format.
struct Queue::Descriptor {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint16_t flags = 0;
  std::uint16_t next = 0;  // the buffer's id in a packed ring
};

// What the driver is told: no more than it gave room for.
inline std::uint32_t length_of(const Chain& chain, std::uint64_t written) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>({written, chain.writable_bytes(), 0xffff'ffff}));
}

template <typename T>
T Queue::load(std::uint64_t address) const {
  return memory_.load<T>(Gpa(address)).value_or(T{0});
}

template <typename T>
void Queue::store(std::uint64_t address, T value) const {
  (void)memory_.store<T>(Gpa(address), value);
}

}  // namespace vmm::virtio

// Order between a store to a ring and a load from it.
#pragma once

namespace vmm::virtio {

// Every access before it, as the guest's CPUs see them, comes before every access after it: for
// "write here, then look there" (GuestMemory::load() and store() alone do not order that). By hand:
// thread sanitizers refuse the library's fence.
inline void full_fence() noexcept { asm volatile("mfence" ::: "memory"); }

}  // namespace vmm::virtio

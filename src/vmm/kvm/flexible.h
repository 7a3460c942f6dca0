// Room for one of KVM's structures that end in an array of a length known at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {

// `Head` is the fixed part and `kHead` its size in C (ioctl_numbers.h); the entries follow.
template <typename Head, typename Entry, std::size_t kHead>
class Flexible {
 public:
  explicit Flexible(std::size_t count) : words_((kHead + count * sizeof(Entry) + 7) / 8 + 1) {}

  Head* get() noexcept { return reinterpret_cast<Head*>(words_.data()); }
  Head& head() noexcept { return *get(); }
  // The first `count` entries; count is at most what the constructor was given.
  std::span<Entry> entries(std::size_t count) noexcept {
    return {reinterpret_cast<Entry*>(reinterpret_cast<std::byte*>(words_.data()) + kHead), count};
  }

 private:
  std::vector<std::uint64_t> words_;
};

using CpuidTable = Flexible<kvm_cpuid2, kvm_cpuid_entry2, kCpuidHead>;
using MsrList = Flexible<kvm_msr_list, std::uint32_t, kMsrListHead>;
using MsrTable = Flexible<kvm_msrs, kvm_msr_entry, kMsrsHead>;
using RoutingTable = Flexible<kvm_irq_routing, kvm_irq_routing_entry, kRoutingHead>;

}  // namespace vmm::kvm

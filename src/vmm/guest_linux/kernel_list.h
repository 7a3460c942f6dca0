// A Linux kernel's lists (struct list_head: the next one, the previous one).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>

#include "vmm/guest_linux/kernel_memory.h"

namespace vmm::guest_linux {

// Calls fn(address of a node), which answers Result<void>, for each node behind `head`, until one
// fails. Says why that was not the whole list: empty when it was. A list that leads in a circle
// without its head, or has more than `most` nodes, ends there.
template <typename Fn>
std::string for_each_node(const KernelMemory& memory, std::uint64_t head, std::size_t most,
                          Fn&& fn) {
  std::unordered_set<std::uint64_t> seen{head};
  std::uint64_t at = head;
  while (true) {
    const auto next = memory.read<std::uint64_t>(at);
    if (!next) return "the list is broken: " + next.error().message();
    if (*next == head) return {};
    if (!seen.insert(*next).second) return "the list is broken: it goes in a circle";
    if (seen.size() > most + 1) return "there are more";
    const Result<void> done = fn(*next);
    if (!done) return "the list is broken: " + done.error().message();
    at = *next;
  }
}

}  // namespace vmm::guest_linux

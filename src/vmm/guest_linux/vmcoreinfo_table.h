// The values of a Linux kernel's VMCOREINFO (vmm/core/vmcoreinfo.h), and where that lies.
//
// Threats: the text is the guest's, a user of it could even make one up: values are what somebody
// says, and nothing but addresses to read from.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "memory/guest_memory.h"

namespace vmm::guest_linux {

class VmcoreinfoTable {
 public:
  // Lines "KEY=VALUE"; others are passed over.
  static VmcoreinfoTable parse(std::string_view text);

  bool empty() const noexcept { return values_.empty(); }
  // SYMBOL(name), the address where KASLR has put it.
  std::optional<std::uint64_t> symbol(std::string_view name) const;
  // KERNELOFFSET: how far KASLR moved the kernel.
  std::optional<std::uint64_t> kernel_offset() const;
  // fn(structure, size in bytes) for each SIZE, fn(structure, member, offset) for each OFFSET.
  void for_each_size(const std::function<void(std::string_view, std::uint64_t)>& fn) const;
  void for_each_offset(
      const std::function<void(std::string_view, std::string_view, std::uint64_t)>& fn) const;

 private:
  std::optional<std::uint64_t> value(std::string_view key, int base) const;
  std::map<std::string, std::string, std::less<>> values_;
};

// The first note in memory, found by looking at the beginning of each page that the host has for
// the guest: others were never touched, or lie on its swap. Empty when there is none.
std::string find_vmcoreinfo(const GuestMemory& memory);

}  // namespace vmm::guest_linux

// A Linux kernel in a guest that stands still: where its variables are, and how its structures are
// laid out, from whatever says so.
//
//   where   --symbols with KASLR's offset; VMCOREINFO in memory; by that, the kernel's own names
//   how     VMCOREINFO (the log); BTF in memory; DWARF of --symbols
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/debug/symbols.h"
#include "vmm/guest_linux/kernel_memory.h"
#include "vmm/guest_linux/layouts.h"
#include "vmm/guest_linux/vmcoreinfo_table.h"

namespace vmm::guest_linux {

struct KernelSources {
  const GuestMemory& memory;                // borrowed
  std::vector<PagingContext> tables;        // of all CPUs
  const debug::Symbols* symbols = nullptr;  // borrowed; null: none
  std::optional<std::uint64_t> offset;      // how far the kernel lies behind them, if that is known
};

class GuestKernel {
 public:
  // Errors: kUnsupported, nothing says where the kernel is, with what would.
  static Result<GuestKernel> open(KernelSources sources);

  const KernelMemory& memory() const noexcept { return memory_; }
  // Where a variable is. Errors: kUnsupported, with what would say it.
  Result<std::uint64_t> symbol(std::string_view name) const;
  // These structures, and those of `more` that the kernel has. Errors: kUnsupported, with what
  // would say it.
  Result<Layouts> layouts(std::span<const std::string_view> needed,
                          std::span<const std::string_view> more = {}) const;

 private:
  GuestKernel(KernelSources sources, KernelMemory memory)
      : sources_(std::move(sources)), memory_(std::move(memory)) {}
  std::string vmcoreinfo_text() const;
  std::optional<std::uint64_t> known_symbol(std::string_view name) const;
  Result<Layouts> layouts_of_btf(std::span<const std::string_view> wanted) const;

  KernelSources sources_;
  KernelMemory memory_;
  VmcoreinfoTable table_;
  std::map<std::string, std::uint64_t, std::less<>> own_names_;
};

}  // namespace vmm::guest_linux

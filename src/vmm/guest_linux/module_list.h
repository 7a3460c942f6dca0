// The modules that a Linux guest has loaded, as lsmod(8) shows them, from the structures in its
// memory.
//
// Threats: lists are the guest's: they may lead anywhere, and end at a bound.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/guest_linux/guest_kernel.h"

namespace vmm::guest_linux {

struct Module {
  std::string name = {};                  // printable
  std::uint64_t text = 0;                 // where its code begins: for gdb's add-symbol-file
  std::uint64_t size = 0;                 // in bytes, of all that it has
  std::optional<std::int64_t> uses = {};  // nothing: a kernel that unloads none
  std::vector<std::string> users = {};    // names of modules
  std::uint32_t state = 0;                // 0: live, 1: being loaded, 2: being unloaded
};

struct ModuleList {
  std::vector<Module> modules;
  std::string cut;  // why these are not all; empty: they are
};

// The newest first; 4096 at most. Errors: kUnsupported, with what is missing.
Result<ModuleList> read_modules(const GuestKernel& kernel);

// A table with a line a module.
std::string format_modules(const ModuleList& list);

}  // namespace vmm::guest_linux

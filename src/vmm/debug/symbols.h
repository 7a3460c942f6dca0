// Names of a kernel's addresses, from its System.map or its vmlinux, and how far the kernel was
// moved from there (KASLR).
//
// Threats: the file is the user's own, and still may be anything: sizes are checked, memory is
// bounded by the file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "vmm/debug/cpu_state.h"

namespace vmm::debug {

class Symbols {
 public:
  // Errors: kBadConfig, the file is neither; kIo.
  static Result<Symbols> load(const std::string& path);
  static Result<Symbols> parse_map(std::string_view text);
  static Result<Symbols> parse_elf(std::string_view image);

  // Where they were loaded from; empty when they were parsed.
  const std::string& path() const noexcept { return path_; }
  std::optional<std::uint64_t> find(std::string_view name) const;
  // "name+0x10" for an address of the file's; empty when it is before all names.
  std::string name_of(std::uint64_t address) const;
  // The symbol that an address lies in or behind, as long as this lives; as name_of().
  struct Place {
    std::string_view name;
    std::uint64_t address = 0;  // where it begins
  };
  std::optional<Place> at(std::uint64_t address) const;
  // Of a kernel from _text to _end, else from the first symbol to the last; [0, 0] without any.
  std::pair<std::uint64_t, std::uint64_t> range() const;
  std::size_t count() const noexcept { return by_name_.size(); }

  // How far the running kernel lies behind its symbols: from where the CPU enters it for system
  // calls, and before the kernel has set that up, from where it was loaded (Machine::kernel_slide),
  // if we chose that.
  std::optional<std::uint64_t> kernel_offset(const CpuState& state,
                                             std::optional<std::uint64_t> loaded) const;
  // The same from IA32_LSTAR alone.
  std::optional<std::uint64_t> kernel_offset(std::uint64_t lstar) const;

  // Where the kernel's first two segments begin that a linker's script for Linux lays out, code and
  // data, by these symbols. Nothing for other kernels.
  struct Segments {
    std::uint64_t text = 0, data = 0;
  };
  std::optional<Segments> segments() const;

 private:
  void add(std::string_view name, std::uint64_t address);
  std::string path_;
  std::map<std::string, std::uint64_t, std::less<>> by_name_;
  std::map<std::uint64_t, std::string> by_address_;
};

}  // namespace vmm::debug

// Where the members of a kernel's structures lie: filled from VMCOREINFO, BTF or DWARF, which all
// say it in another way.
//
// Members have the names that C would have for them: those of unnamed structures and unions inside
// are the structure's own; those of a named one are "member.inner", once. "array[]" is the first
// element of an array, "array[].inner" a member of that.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::guest_linux {

// In bytes from the beginning of the structure; size 0: not told, or a bit field.
struct Field {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  bool operator==(const Field&) const = default;
};

class Layouts {
 public:
  // What is known already stays.
  void add_struct(std::string_view name, std::uint64_t size);
  void add_field(std::string_view name, std::string_view field, Field where);
  void add(const Layouts& other);

  // nullptr, nothing: not known.
  const Field* find(std::string_view name, std::string_view field) const;
  std::optional<std::uint64_t> size(std::string_view name) const;
  // Errors: kUnsupported naming what is not known.
  Result<Field> field(std::string_view name, std::string_view field) const;
  Result<std::uint64_t> offset(std::string_view name, std::string_view field) const;
  Result<std::uint64_t> need_size(std::string_view name) const;

  bool has(std::string_view name) const { return structs_.find(name) != structs_.end(); }
  bool has_all(std::span<const std::string_view> names) const;

 private:
  struct Struct {
    std::optional<std::uint64_t> size;
    std::map<std::string, Field, std::less<>> fields;
  };
  Struct& entry(std::string_view name);
  std::map<std::string, Struct, std::less<>> structs_;
};

}  // namespace vmm::guest_linux

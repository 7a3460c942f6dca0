#include "vmm/guest_linux/layouts.h"

#include <algorithm>

namespace vmm::guest_linux {

Layouts::Struct& Layouts::entry(std::string_view name) {
  const auto found = structs_.find(name);
  if (found != structs_.end()) return found->second;
  return structs_.emplace(name, Struct{}).first->second;
}

void Layouts::add_struct(std::string_view name, std::uint64_t size) {
  Struct& known = entry(name);
  if (!known.size) known.size = size;
}

void Layouts::add_field(std::string_view name, std::string_view field, Field where) {
  entry(name).fields.emplace(field, where);
}

void Layouts::add(const Layouts& other) {
  for (const auto& [name, layout] : other.structs_) {
    if (layout.size) add_struct(name, *layout.size);
    for (const auto& [field, where] : layout.fields) add_field(name, field, where);
  }
}

const Field* Layouts::find(std::string_view name, std::string_view field) const {
  const auto found = structs_.find(name);
  if (found == structs_.end()) return nullptr;
  const auto member = found->second.fields.find(field);
  return member == found->second.fields.end() ? nullptr : &member->second;
}

std::optional<std::uint64_t> Layouts::size(std::string_view name) const {
  const auto found = structs_.find(name);
  return found == structs_.end() ? std::nullopt : found->second.size;
}

Result<Field> Layouts::field(std::string_view name, std::string_view field) const {
  if (const Field* const found = find(name, field)) return *found;
  return fail(ErrorCode::kUnsupported, "Where struct {} of this kernel has {} is not known", name,
              field);
}

Result<std::uint64_t> Layouts::offset(std::string_view name, std::string_view field_name) const {
  return VMM_TRY(field(name, field_name)).offset;
}

Result<std::uint64_t> Layouts::need_size(std::string_view name) const {
  if (const auto known = size(name)) return *known;
  return fail(ErrorCode::kUnsupported, "How large struct {} of this kernel is, is not known", name);
}

bool Layouts::has_all(std::span<const std::string_view> names) const {
  return std::all_of(names.begin(), names.end(), [this](std::string_view n) { return has(n); });
}

}  // namespace vmm::guest_linux

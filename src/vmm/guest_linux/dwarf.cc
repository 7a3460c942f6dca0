#include "vmm/guest_linux/dwarf.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/shared_library.h"
#include "base/unique_fd.h"

namespace vmm::guest_linux {
namespace {

constexpr unsigned kMostNesting = 8;  // unnamed structures in each other

// The functions that are used, by their names in libdw.
struct Library {
  SharedLibrary library;
  decltype(&::dwarf_begin) begin = nullptr;
  decltype(&::dwarf_end) end = nullptr;
  decltype(&::dwarf_nextcu) next_unit = nullptr;
  decltype(&::dwarf_offdie) die_at = nullptr;
  decltype(&::dwarf_child) child = nullptr;
  decltype(&::dwarf_siblingof) sibling = nullptr;
  decltype(&::dwarf_tag) tag = nullptr;
  decltype(&::dwarf_diename) name = nullptr;
  decltype(&::dwarf_attr) attribute = nullptr;
  decltype(&::dwarf_attr_integrate) attribute_integrate = nullptr;
  decltype(&::dwarf_formref_die) referred = nullptr;
  decltype(&::dwarf_formudata) number = nullptr;
  decltype(&::dwarf_hasattr) has = nullptr;
  decltype(&::dwarf_peel_type) peel = nullptr;
  decltype(&::dwarf_aggregate_size) size = nullptr;
};

Result<Library> load() {
  Library found{
      .library = VMM_TRY(SharedLibrary::open("libdw.so.1", "Reading debug information", "libdw1"))};
  const SharedLibrary& library = found.library;
  if (!library.find("dwarf_begin", found.begin) || !library.find("dwarf_end", found.end) ||
      !library.find("dwarf_nextcu", found.next_unit) ||
      !library.find("dwarf_offdie", found.die_at) || !library.find("dwarf_child", found.child) ||
      !library.find("dwarf_siblingof", found.sibling) || !library.find("dwarf_tag", found.tag) ||
      !library.find("dwarf_diename", found.name) || !library.find("dwarf_attr", found.attribute) ||
      !library.find("dwarf_attr_integrate", found.attribute_integrate) ||
      !library.find("dwarf_formref_die", found.referred) ||
      !library.find("dwarf_formudata", found.number) || !library.find("dwarf_hasattr", found.has) ||
      !library.find("dwarf_peel_type", found.peel) ||
      !library.find("dwarf_aggregate_size", found.size)) {
    return fail(ErrorCode::kUnsupported, "libdw.so.1 lacks a function of elfutils 0.188");
  }
  return found;
}

class Reader {
 public:
  Reader(const Library& library, Dwarf* file, std::span<const std::string_view> wanted)
      : lib_(library), file_(file), wanted_(wanted) {}

  // Unit by unit, until all are found.
  Layouts read() {
    Dwarf_Off next = 0;
    std::size_t head = 0;
    for (Dwarf_Off at = 0; !found_.has_all(wanted_) &&
                           lib_.next_unit(file_, at, &next, &head, nullptr, nullptr, nullptr) == 0;
         at = next) {
      Dwarf_Die unit;
      if (lib_.die_at(file_, at + head, &unit) == nullptr) continue;
      for_each_child(unit, [this](Dwarf_Die& die) { look_at(die); });
    }
    return std::move(found_);
  }

 private:
  // Where members are that are being added.
  struct Inside {
    std::uint64_t base = 0;
    std::string prefix = {};  // "member." of the structure that is asked for
    unsigned depth = 0;
  };

  template <typename Fn>
  void for_each_child(Dwarf_Die& parent, Fn&& fn) const {
    Dwarf_Die die;
    if (lib_.child(&parent, &die) != 0) return;
    do {
      fn(die);
    } while (lib_.sibling(&die, &die) == 0);
  }

  void look_at(Dwarf_Die& die) {
    if (lib_.tag(&die) != DW_TAG_structure_type) return;
    const char* const text = lib_.name(&die);
    if (text == nullptr || lib_.has(&die, DW_AT_declaration) != 0) return;
    const std::string_view name(text);
    if (found_.has(name) || std::find(wanted_.begin(), wanted_.end(), name) == wanted_.end()) {
      return;
    }
    found_.add_struct(name, size_of(die));
    add_members(name, die, {});
  }

  void add_members(std::string_view name, Dwarf_Die& die, const Inside& inside) {
    if (inside.depth > kMostNesting) return;
    for_each_child(die, [&](Dwarf_Die& member) {
      if (lib_.tag(&member) == DW_TAG_member) add_member(name, member, inside);
    });
  }

  void add_member(std::string_view name, Dwarf_Die& member, const Inside& inside) {
    auto type = type_of(member);
    if (!type) return;
    const std::uint64_t offset = inside.base + offset_of(member);
    Inside next{.base = offset, .prefix = inside.prefix, .depth = inside.depth + 1};
    if (const char* const field = lib_.name(&member)) {
      const std::string whole = inside.prefix + field;
      const bool bit_field = lib_.has(&member, DW_AT_bit_size) != 0;
      found_.add_field(name, whole, {.offset = offset, .size = bit_field ? 0 : size_of(*type)});
      if (!inside.prefix.empty()) return;
      next.prefix = whole;
      if (lib_.tag(&*type) == DW_TAG_array_type) {
        type = type_of(*type);
        if (!type) return;
        next.prefix += "[]";
        found_.add_field(name, next.prefix, {.offset = offset, .size = size_of(*type)});
      }
    }
    const int tag = lib_.tag(&*type);
    if (tag != DW_TAG_structure_type && tag != DW_TAG_union_type) return;
    if (!next.prefix.empty() && next.prefix.back() != '.') next.prefix += '.';
    add_members(name, *type, next);
  }

  // Behind names for types, const and the like.
  std::optional<Dwarf_Die> type_of(Dwarf_Die& die) const {
    Dwarf_Attribute attribute;
    Dwarf_Die type, peeled;
    if (lib_.attribute_integrate(&die, DW_AT_type, &attribute) == nullptr ||
        lib_.referred(&attribute, &type) == nullptr || lib_.peel(&type, &peeled) != 0) {
      return std::nullopt;
    }
    return peeled;
  }

  // Bit fields say it in bits (DWARF 4 and later).
  std::uint64_t offset_of(Dwarf_Die& member) const {
    if (const auto bytes = number_of(member, DW_AT_data_member_location)) return *bytes;
    return number_of(member, DW_AT_data_bit_offset).value_or(0) / 8;
  }

  std::optional<std::uint64_t> number_of(Dwarf_Die& die, unsigned which) const {
    Dwarf_Attribute attribute;
    Dwarf_Word value = 0;
    if (lib_.attribute(&die, which, &attribute) == nullptr ||
        lib_.number(&attribute, &value) != 0) {
      return std::nullopt;
    }
    return value;
  }

  // 0: not known.
  std::uint64_t size_of(Dwarf_Die& type) const {
    Dwarf_Word size = 0;
    return lib_.size(&type, &size) == 0 ? size : 0;
  }

  const Library& lib_;
  Dwarf* file_;
  std::span<const std::string_view> wanted_;
  Layouts found_;
};

}  // namespace

Result<Layouts> read_dwarf(const std::string& path, std::span<const std::string_view> wanted) {
  const Library library = VMM_TRY(load());
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno(errno, "Open {} for its debug information", path);
  const std::unique_ptr<Dwarf, decltype(library.end)> dwarf(library.begin(file.get(), DWARF_C_READ),
                                                            library.end);
  if (!dwarf) return fail(ErrorCode::kUnsupported, "{} has no debug information", path);
  return Reader(library, dwarf.get(), wanted).read();
}

}  // namespace vmm::guest_linux

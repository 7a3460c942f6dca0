#include "vmm/guest_linux/btf.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace vmm::guest_linux {
namespace {

// include/uapi/linux/btf.h
constexpr std::uint16_t kMagic = 0xeb9f;
constexpr std::uint8_t kVersion = 1;
enum Kind : std::uint32_t {
  kInt = 1,
  kPtr = 2,
  kArray = 3,
  kStruct = 4,
  kUnion = 5,
  kEnum = 6,
  kFwd = 7,
  kTypedef = 8,
  kVolatile = 9,
  kConst = 10,
  kRestrict = 11,
  kFunc = 12,
  kFuncProto = 13,
  kVar = 14,
  kDatasec = 15,
  kFloat = 16,
  kDeclTag = 17,
  kTypeTag = 18,
  kEnum64 = 19,
};

struct Header {
  std::uint16_t magic;
  std::uint8_t version, flags;
  std::uint32_t length, types_at, types_size, strings_at, strings_size;
};
struct Type {
  std::uint32_t name, info, size_or_type;

  std::uint32_t kind() const noexcept { return info >> 24 & 0x1f; }
  std::uint32_t count() const noexcept { return info & 0xffff; }
  bool bit_fields() const noexcept { return (info >> 31) != 0; }
};
struct Member {
  std::uint32_t name, type, offset;
};
struct Array {
  std::uint32_t element, index, count;
};

constexpr unsigned kMostChain = 32;         // typedef of const of ...
constexpr unsigned kMostNesting = 8;        // unnamed structures in each other
constexpr std::size_t kMostMembers = 8192;  // of one structure, with those inside
constexpr std::uint64_t kPointerSize = 8;

// What follows a type, in bytes; nothing for a kind that is not known, behind which nothing is.
std::optional<std::size_t> rest_size(const Type& type) {
  switch (type.kind()) {
    case kInt:
    case kVar:
    case kDeclTag:
      return 4;
    case kArray:
      return sizeof(Array);
    case kStruct:
    case kUnion:
    case kDatasec:
    case kEnum64:
      return std::size_t{12} * type.count();
    case kEnum:
    case kFuncProto:
      return std::size_t{8} * type.count();
    case kPtr:
    case kFwd:
    case kTypedef:
    case kVolatile:
    case kConst:
    case kRestrict:
    case kFunc:
    case kFloat:
    case kTypeTag:
      return 0;
    default:
      return std::nullopt;
  }
}

std::span<const std::byte> slice(std::span<const std::byte> all, std::uint64_t at,
                                 std::uint64_t size) {
  if (at > all.size() || size > all.size() - at) return {};
  return all.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(size));
}

template <typename T>
std::optional<T> value_at(std::span<const std::byte> all, std::size_t at) {
  const auto bytes = slice(all, at, sizeof(T));
  if (bytes.empty()) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

class Reader {
 public:
  Reader(std::span<const std::byte> types, std::span<const std::byte> strings)
      : types_(types), strings_(reinterpret_cast<const char*>(strings.data()), strings.size()) {
    std::size_t at = 0;
    while (const auto type = value_at<Type>(types_, at)) {
      const auto rest = rest_size(*type);
      if (!rest) break;
      places_.push_back(at);
      at += sizeof *type + *rest;
    }
  }

  Layouts read(std::span<const std::string_view> wanted) {
    Layouts found;
    for (std::uint32_t id = 1; id <= places_.size(); ++id) {
      const Type type = *find(id);
      if (type.kind() != kStruct) continue;
      const std::string_view name = name_at(type.name);
      if (name.empty() || found.has(name) ||
          std::find(wanted.begin(), wanted.end(), name) == wanted.end()) {
        continue;
      }
      found.add_struct(name, type.size_or_type);
      members_ = 0;
      add_members(found, name, id, {});
    }
    return found;
  }

 private:
  // Numbers begin with 1; 0 is void.
  std::optional<Type> find(std::uint32_t id) const {
    if (id == 0 || id > places_.size()) return std::nullopt;
    return value_at<Type>(types_, places_[id - 1]);
  }

  std::string_view name_at(std::uint32_t at) const {
    if (at >= strings_.size()) return {};
    const std::string_view rest = strings_.substr(at);
    return rest.substr(0, rest.find('\0'));
  }

  // Where members are that are being added.
  struct Inside {
    std::uint64_t base = 0;
    std::string prefix = {};  // "member." of the structure that is asked for
    unsigned depth = 0;
  };

  void add_members(Layouts& to, std::string_view name, std::uint32_t id, const Inside& inside) {
    if (inside.depth > kMostNesting) return;
    const Type type = *find(id);
    const std::size_t at = places_[id - 1] + sizeof type;
    for (std::uint32_t i = 0; i < type.count() && members_ < kMostMembers; ++i, ++members_) {
      const auto member = value_at<Member>(types_, at + i * sizeof(Member));
      if (!member) return;
      const std::uint32_t bits = type.bit_fields() ? member->offset & 0xffffff : member->offset;
      const bool bit_field = type.bit_fields() && (member->offset >> 24) != 0;
      const std::uint64_t offset = inside.base + bits / 8;
      const std::string_view field = name_at(member->name);
      Inside next{.base = offset, .prefix = inside.prefix, .depth = inside.depth + 1};
      if (!field.empty()) {
        const std::string whole = inside.prefix + std::string(field);
        to.add_field(name, whole,
                     {.offset = offset, .size = bit_field ? 0 : size_of(member->type)});
        if (!inside.prefix.empty()) continue;
        next.prefix = whole;
        if (const auto element = element_of(member->type)) {
          next.prefix += "[]";
          to.add_field(name, next.prefix, {.offset = offset, .size = size_of(*element)});
          add_composite(to, name, *element, next);
          continue;
        }
      }
      add_composite(to, name, member->type, next);
    }
  }

  void add_composite(Layouts& to, std::string_view name, std::uint32_t id, Inside inside) {
    const auto inner = composite(id);
    if (!inner) return;
    if (!inside.prefix.empty() && inside.prefix.back() != '.') inside.prefix += '.';
    add_members(to, name, *inner, inside);
  }

  std::optional<std::uint32_t> element_of(std::uint32_t id) const {
    const auto type = find(id);
    if (!type || type->kind() != kArray) return std::nullopt;
    const auto array = value_at<Array>(types_, places_[id - 1] + sizeof(Type));
    return array ? std::optional(array->element) : std::nullopt;
  }

  static bool is_alias(const Type& type) {
    const std::uint32_t kind = type.kind();
    return kind == kTypedef || kind == kVolatile || kind == kConst || kind == kRestrict ||
           kind == kTypeTag;
  }

  std::optional<std::uint32_t> composite(std::uint32_t id) const {
    for (unsigned i = 0; i < kMostChain; ++i) {
      const auto type = find(id);
      if (!type) return std::nullopt;
      if (type->kind() == kStruct || type->kind() == kUnion) return id;
      if (!is_alias(*type)) return std::nullopt;
      id = type->size_or_type;
    }
    return std::nullopt;
  }

  // 0: not known.
  std::uint64_t size_of(std::uint32_t id) const {
    std::uint64_t times = 1;
    for (unsigned i = 0; i < kMostChain; ++i) {
      const auto type = find(id);
      if (!type) return 0;
      const std::uint32_t kind = type->kind();
      if (kind == kPtr) return times * kPointerSize;
      if (kind == kArray) {
        const auto array = value_at<Array>(types_, places_[id - 1] + sizeof(Type));
        if (!array || array->count > kMostBtf || times > kMostBtf) return 0;
        times *= array->count;
        id = array->element;
      } else if (is_alias(*type)) {
        id = type->size_or_type;
      } else if (kind == kInt || kind == kStruct || kind == kUnion || kind == kEnum ||
                 kind == kFloat || kind == kEnum64) {
        return times * type->size_or_type;
      } else {
        return 0;
      }
    }
    return 0;
  }

  std::span<const std::byte> types_;
  std::string_view strings_;
  std::vector<std::size_t> places_;  // of the types, by their number - 1
  std::size_t members_ = 0;
};

}  // namespace

Result<Layouts> read_btf(std::span<const std::byte> btf, std::span<const std::string_view> wanted) {
  const auto head = value_at<Header>(btf, 0);
  if (!head || head->magic != kMagic || head->version != kVersion ||
      head->length < sizeof(Header)) {
    return fail(ErrorCode::kBadState, "This is no BTF of version 1");
  }
  const auto types = slice(btf, std::uint64_t{head->length} + head->types_at, head->types_size);
  const auto strings =
      slice(btf, std::uint64_t{head->length} + head->strings_at, head->strings_size);
  if (types.empty() || strings.empty()) {
    return fail(ErrorCode::kBadState, "The BTF has no types, or ends before them");
  }
  return Reader(types, strings).read(wanted);
}

}  // namespace vmm::guest_linux

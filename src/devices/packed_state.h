// A saved value with all that is in it, as it stands in a file: CBOR (RFC 8949), and an index of
// its items beside it. Reading costs no allocation for each value, which a machine that is to go on
// from a file within microseconds would notice.
//
// Of CBOR there is what states are made of: integers, byte and text strings, lists and maps of a
// length that is given, true, false, null; floating-point numbers are told from integers. The names
// of a map are in order, each once. Anything else, nesting of more than 64, and bytes behind the
// value are refused: the file is untrusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace vmm {

// Immutable: any thread.
class PackedState {
 public:
  enum class Kind : std::uint8_t {
    kNothing,
    kFalse,
    kTrue,
    kUnsigned,  // its number
    kNegative,  // -1 minus its number, which an int64_t can hold
    kReal,      // its number's bits are those of a double
    kBytes,     // and text: see bytes()
    kText,
    kList,       // of so many values
    kStructure,  // of so many members: a text each, followed by its value
  };
  // One item. Those inside of it follow it; `end` is the item behind all of them.
  struct Item {
    std::uint64_t number = 0;
    std::uint32_t end = 0;
    Kind kind = Kind::kNothing;
  };

  // Errors: kBadState, no such document.
  static Result<PackedState> parse(std::vector<std::byte> cbor);
  static PackedState of(const nlohmann::json& value);

  // The first one is the whole document; `index` is below their number.
  const Item& item(std::uint32_t index) const noexcept { return items_[index]; }
  // What is in a string of bytes or text; as long as this lives.
  std::span<const std::byte> bytes(const Item& item) const noexcept;
  std::string_view text(const Item& item) const noexcept;
  nlohmann::json json(std::uint32_t index) const;

 private:
  PackedState(std::vector<std::byte> cbor, std::vector<Item> items) noexcept
      : cbor_(std::move(cbor)), items_(std::move(items)) {}

  std::vector<std::byte> cbor_;
  std::vector<Item> items_;
};

}  // namespace vmm

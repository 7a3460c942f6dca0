// Saved values without their representation: what a field list (state_io.h) writes to and reads
// from. JSON is behind it, and stays out of the devices' code: its templates would be compiled
// again in each of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>

#include "base/result.h"

namespace vmm {

// No saved list is longer than this: a state file is untrusted.
inline constexpr std::size_t kMaxStateElements = std::size_t{1} << 20;

// A place for one value, empty at first. Short-lived: the next element or member of the same list
// or structure may move it.
class StateSlot {
 public:
  explicit StateSlot(nlohmann::json& place) noexcept : place_(&place) {}

  void put_flag(bool value) const;
  void put_unsigned(std::uint64_t value) const;
  void put_signed(std::int64_t value) const;
  void put_text(std::string_view value) const;
  void put_bytes(std::span<const std::byte> value) const;

  void be_list() const;
  StateSlot element() const;  // a new last one
  void be_structure() const;
  StateSlot member(const char* name) const;

 private:
  nlohmann::json* place_;
};

// One value of an untrusted document, as long as that lives. Errors are kBadState and say what was
// expected.
class StateView {
 public:
  explicit StateView(const nlohmann::json& value) noexcept : value_(&value) {}

  bool is_nothing() const noexcept;
  Result<bool> flag() const;
  // Of an integer: the one that can hold it, or both.
  std::optional<std::uint64_t> as_unsigned() const;
  std::optional<std::int64_t> as_signed() const;
  Result<std::string> text() const;
  Result<std::span<const std::byte>> bytes() const;
  // For a message.
  std::string shown() const;

  // The number of a list's elements, which the second asks to be exactly so many.
  Result<std::size_t> list(std::size_t most) const;
  Result<void> list_of(std::size_t elements) const;
  StateView element(std::size_t index) const;  // below list()

  Result<void> structure() const;
  Result<StateView> member(const char* name) const;  // of a structure
  // Says so when a structure has other members than `known` ones, all of which it has.
  Result<void> no_more_than(std::size_t known) const;

 private:
  const nlohmann::json* value_;
};

// A value with all that is in it: a document of a saved state. Copies share it until one is
// changed; they may be read by different threads.
class StateDocument {
 public:
  StateDocument();
  explicit StateDocument(nlohmann::json value);
  StateDocument(const StateDocument& other);
  StateDocument(StateDocument&& other) noexcept;
  StateDocument& operator=(StateDocument other) noexcept;
  ~StateDocument();

  bool operator==(const StateDocument& other) const;
  const nlohmann::json& json() const noexcept;
  nlohmann::json& json();                   // of its own from now on
  std::string text(int indent = -1) const;  // JSON; on one line without an indentation

  // What a reader has made of the document, for the next that wants the same type of it: a snapshot
  // is gone back to many times. Null when nobody has.
  std::shared_ptr<const void> made(const std::type_info& type) const;
  void remember(const std::type_info& type, std::shared_ptr<const void> value) const;
  // A value inside as a document of its own, by its JSON pointer (RFC 6901). What is remembered of
  // it stays with this. Nothing when there is none.
  std::optional<StateDocument> at(const std::string& pointer) const;

 private:
  struct Value;
  std::shared_ptr<Value> value_;  // never null, but in what was moved away
};

}  // namespace vmm

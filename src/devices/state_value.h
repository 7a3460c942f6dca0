// Saved values without their representation: what a field list (state_io.h) writes to and reads
// from. JSON is behind the one and stays out of the devices' code: its templates would be compiled
// again in each of them. Behind the other is what a file has (packed_state.h).
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
#include <utility>
#include <vector>

#include "base/result.h"
#include "devices/packed_state.h"

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
  StateView(const PackedState& document, std::uint32_t item) noexcept
      : document_(&document), item_(item) {}

  bool is_nothing() const noexcept;
  Result<bool> flag() const;
  // Of an integer: the one that can hold it, or both.
  std::optional<std::uint64_t> as_unsigned() const noexcept;
  std::optional<std::int64_t> as_signed() const noexcept;
  Result<std::string> text() const;
  Result<std::span<const std::byte>> bytes() const;
  // For a message.
  std::string shown() const;

  // The number of a list's elements, which the second asks to be exactly so many.
  Result<std::size_t> list(std::size_t most) const;
  Result<void> list_of(std::size_t elements) const;
  // The first of a list's elements, and what is behind an element: there as long as the list has
  // more of them.
  StateView first() const noexcept;
  StateView next() const noexcept;

  Result<void> structure() const;
  Result<StateView> member(std::string_view name) const;  // of a structure
  std::vector<std::pair<std::string_view, StateView>> members() const;
  // Says so when a structure has other members than `known` ones, all of which it has.
  Result<void> no_more_than(std::size_t known) const;

 private:
  friend class StateDocument;

  const PackedState* document_;
  std::uint32_t item_;
};

// A value with all that is in it: a document of a saved state. Copies share it until one is
// changed; they may be read by different threads.
class StateDocument {
 public:
  StateDocument();
  explicit StateDocument(nlohmann::json value);
  explicit StateDocument(PackedState value);
  StateDocument(const StateDocument& other);
  StateDocument(StateDocument&& other) noexcept;
  StateDocument& operator=(StateDocument other) noexcept;
  ~StateDocument();

  bool operator==(const StateDocument& other) const;
  // The same in two forms, each made when it is first asked for.
  const nlohmann::json& json() const;
  StateView view() const;
  nlohmann::json& json();                   // of its own from now on
  std::string text(int indent = -1) const;  // JSON; on one line without an indentation

  // What a reader has made of the document, for the next that wants the same type of it: a snapshot
  // is gone back to many times. Null when nobody has.
  std::shared_ptr<const void> made(const std::type_info& type) const;
  void remember(const std::type_info& type, std::shared_ptr<const void> value) const;
  // A value inside as a document of its own. What is remembered of it stays with this. Nothing when
  // there is none.
  std::optional<StateDocument> member(std::string_view name) const;
  // The same of a view() of it, or of what is in one; nothing is remembered.
  StateDocument part(StateView view) const;

 private:
  struct Value;
  explicit StateDocument(std::shared_ptr<Value> value) noexcept;
  std::shared_ptr<Value> value_;  // never null, but in what was moved away
};

}  // namespace vmm

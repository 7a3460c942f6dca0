// Saving and restoring a device's State, with its field list written once.
//
// A state structure names its type and version and lists its fields:
//
//   struct State {
//     static constexpr StateId kId{"uart16550", 1};
//     std::uint8_t ier = 0;
//     BoundedQueue<std::uint8_t, 64> rx;
//     bool operator==(const State&) const = default;
//     static void fields(auto&& f) { f("ier", &State::ier); f("rx", &State::rx); }
//   };
//
// The same list drives save, restore, printing and comparison. Fields may be integers, bool, enums,
// std::array, std::vector (bounded by kMaxStateElements), std::optional, BoundedQueue, std::string,
// and structures with a field list, nested as deep as the types are. A structure whose values must
// fit together, or that holds enums, also has `Result<void> validate() const`; a reader calls it,
// so that what it returns is sound. A field that states of before do not have is named by
// `static constexpr bool added_later(std::string_view field)`: where it is missing it reads as if
// it were new. A type with a form of its own has `write_state(StateSlot, const T&)` and
// `read_state(StateView, T&)` beside it.
//
// For a device's .cc; its header needs only devices/state_id.h.
#pragma once

#include <fmt/format.h>

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "devices/state_id.h"
#include "devices/state_value.h"

namespace vmm {

namespace detail {

struct FieldProbe {
  template <typename Member>
  void operator()(const char*, Member) {}
};

template <typename T>
concept HasFields = requires(FieldProbe probe) {
  T::fields(probe);
};

template <typename T>
concept HasLaterFields = requires {
  { T::added_later(std::string_view()) } -> std::same_as<bool>;
};

template <typename T>
concept HasValidate = requires(const T& value) {
  { value.validate() } -> std::same_as<Result<void>>;
};

// Declared ahead of their bodies: containers may hold containers and structures in any order.
template <typename T>
void write_state(StateSlot slot, const T& value);
template <typename T, std::size_t N>
void write_state(StateSlot slot, const std::array<T, N>& value);
template <typename T>
void write_state(StateSlot slot, const std::vector<T>& value);
template <typename T, std::size_t N>
void write_state(StateSlot slot, const BoundedQueue<T, N>& value);
template <typename T>
void write_state(StateSlot slot, const std::optional<T>& value);

template <typename T, std::size_t N>
void write_state(StateSlot slot, const std::array<T, N>& value) {
  slot.be_list();
  for (const T& item : value) write_state(slot.element(), item);
}
template <typename T>
void write_state(StateSlot slot, const std::vector<T>& value) {
  slot.be_list();
  for (const T& item : value) write_state(slot.element(), item);
}
template <typename T, std::size_t N>
void write_state(StateSlot slot, const BoundedQueue<T, N>& value) {
  slot.be_list();
  for (std::size_t i = 0; i < value.size(); ++i) write_state(slot.element(), value[i]);
}
template <typename T>
void write_state(StateSlot slot, const std::optional<T>& value) {
  if (value) write_state(slot, *value);
}
template <typename T>
void write_state(StateSlot slot, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    slot.put_flag(value);
  } else if constexpr (std::is_enum_v<T>) {
    write_state(slot, static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (std::is_unsigned_v<T>) {
    slot.put_unsigned(value);
  } else if constexpr (std::is_integral_v<T>) {
    slot.put_signed(value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    slot.put_text(value);
  } else {
    static_assert(HasFields<T>, "a saved structure lists its fields");
    slot.be_structure();
    T::fields(
        [&](const char* name, auto member) { write_state(slot.member(name), value.*member); });
  }
}

template <typename T>
Result<void> read_state(StateView view, T& value);
template <typename T, std::size_t N>
Result<void> read_state(StateView view, std::array<T, N>& value);
template <typename T>
Result<void> read_state(StateView view, std::vector<T>& value);
template <typename T, std::size_t N>
Result<void> read_state(StateView view, BoundedQueue<T, N>& value);
template <typename T>
Result<void> read_state(StateView view, std::optional<T>& value);

template <typename T, std::size_t N>
Result<void> read_state(StateView view, std::array<T, N>& value) {
  VMM_TRY(view.list_of(N));
  StateView item = view.first();
  for (std::size_t i = 0; i < N; ++i, item = item.next()) VMM_TRY(read_state(item, value[i]));
  return {};
}
template <typename T>
Result<void> read_state(StateView view, std::vector<T>& value) {
  const std::size_t count = VMM_TRY(view.list(kMaxStateElements));
  value.clear();
  StateView item = view.first();
  for (std::size_t i = 0; i < count; ++i, item = item.next()) {
    T element{};
    VMM_TRY(read_state(item, element));
    value.push_back(std::move(element));
  }
  return {};
}
template <typename T, std::size_t N>
Result<void> read_state(StateView view, BoundedQueue<T, N>& value) {
  const std::size_t count = VMM_TRY(view.list(N));
  value.clear();
  StateView item = view.first();
  for (std::size_t i = 0; i < count; ++i, item = item.next()) {
    T element{};
    VMM_TRY(read_state(item, element));
    value.push(element);
  }
  return {};
}
template <typename T>
Result<void> read_state(StateView view, std::optional<T>& value) {
  value.reset();
  if (view.is_nothing()) return {};
  T inner{};
  VMM_TRY(read_state(view, inner));
  value = std::move(inner);
  return {};
}

// An integer that fits T exactly: a saved 300 never becomes a register of 44.
template <std::integral T>
Result<void> read_integer(StateView view, T& value) {
  const auto take = [&value](auto number) {
    if (!number || !std::in_range<T>(*number)) return false;
    value = static_cast<T>(*number);
    return true;
  };
  if (take(view.as_unsigned()) || take(view.as_signed())) return {};
  return fail(ErrorCode::kBadState, "expected an integer of {} bits, got {}", 8 * sizeof(T),
              view.shown());
}

template <typename T>
Result<void> read_state(StateView view, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    value = VMM_TRY(view.flag());
    return {};
  } else if constexpr (std::is_enum_v<T>) {
    std::underlying_type_t<T> number{};
    VMM_TRY(read_integer(view, number));
    value = static_cast<T>(number);  // the owner's validate() knows which values exist
    return {};
  } else if constexpr (std::is_integral_v<T>) {
    return read_integer(view, value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = VMM_TRY(view.text());
    return {};
  } else {
    static_assert(HasFields<T>, "a saved structure lists its fields");
    VMM_TRY(view.structure());
    Result<void> result;
    std::size_t known = 0;
    T::fields([&](const char* name, auto member) {
      ++known;
      if (!result) return;
      const Result<StateView> found = view.member(name);
      if constexpr (HasLaterFields<T>) {
        if (!found && T::added_later(name)) {
          value.*member = {};
          --known;
          return;
        }
      }
      if (!found) {
        result = tl::unexpected<Error>(found.error());
        return;
      }
      auto field = read_state(*found, value.*member);
      if (!field) result = with_context(std::move(field), fmt::format("field '{}'", name));
    });
    if (result) result = view.no_more_than(known);
    if constexpr (HasValidate<T>) {
      if (result) result = value.validate();
    }
    return result;
  }
}

}  // namespace detail

// Collects one device's state. What uses the document includes <nlohmann/json.hpp>.
class StateWriter {
 public:
  template <typename State>
  void put(const State& state) {
    detail::write_state(begin(State::kId), state);
  }
  // The state of another that is saved inside this one, after put().
  void put_part(const std::string& name, const StateWriter& part);
  const nlohmann::json& document() const noexcept { return document_.json(); }
  const StateDocument& whole() const noexcept { return document_; }

 private:
  StateSlot begin(StateId id);  // the place of the state

  StateDocument document_;
};

// Gives back what a StateWriter collected; the document is untrusted.
class StateReader {
 public:
  explicit StateReader(nlohmann::json document);
  explicit StateReader(StateDocument document) : document_(std::move(document)) {}
  explicit StateReader(const StateWriter& saved) : document_(saved.whole()) {}

  // Read once: the document remembers what has come of it, for all that share it.
  // Errors: kBadState naming the field; unknown type or version; missing, extra or ill-typed
  // fields; what State::validate() refuses.
  template <typename State>
  Result<State> get() const {
    if (const auto made = document_.made(typeid(State))) {
      return *static_cast<const State*>(made.get());
    }
    const StateView fields = VMM_TRY(begin(State::kId));
    State state;
    VMM_TRY(with_context(detail::read_state(fields, state),
                         fmt::format("Read the saved state of '{}'", State::kId.type)));
    document_.remember(typeid(State), std::make_shared<const State>(state));
    return state;
  }
  // What put_part() took. Errors: kBadState when there is no such part.
  Result<StateReader> part(const std::string& name) const;

 private:
  Result<StateView> begin(StateId id) const;

  StateDocument document_;
};

// The fields of a state, for printing and comparison: all of them, and as JSON.
template <typename State>
StateDocument fields_of(const State& state) {
  StateDocument document;
  detail::write_state(StateSlot(document.json()), state);
  return document;
}
template <typename State>
std::string describe(const State& state) {
  return fields_of(state).text();
}

}  // namespace vmm

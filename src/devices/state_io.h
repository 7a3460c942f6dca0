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
// std::array, std::vector (bounded by kMaxElements), std::optional, BoundedQueue, std::string, and
// structures with a field list, nested as deep as the types are. A structure whose values must fit
// together, or that holds enums, also has `Result<void> validate() const`; a reader calls it, so
// that what it returns is sound.
//
// Heavy (JSON): include it in a device's .cc; the header needs only devices/state_id.h.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "devices/state_id.h"

namespace vmm {

namespace detail {

// No saved list is longer than this: a state file is untrusted.
inline constexpr std::size_t kMaxElements = std::size_t{1} << 20;

struct FieldProbe {
  template <typename Member>
  void operator()(const char*, Member) {}
};

template <typename T>
concept HasFields = requires(FieldProbe probe) {
  T::fields(probe);
};

template <typename T>
concept HasValidate = requires(const T& value) {
  { value.validate() } -> std::same_as<Result<void>>;
};

// Declared ahead of their bodies: containers may hold containers and structures in any order.
template <typename T>
nlohmann::json to_json(const T& value);
template <typename T, std::size_t N>
nlohmann::json to_json(const std::array<T, N>& value);
template <typename T>
nlohmann::json to_json(const std::vector<T>& value);
template <typename T, std::size_t N>
nlohmann::json to_json(const BoundedQueue<T, N>& value);
template <typename T>
nlohmann::json to_json(const std::optional<T>& value);

template <typename T, std::size_t N>
nlohmann::json to_json(const std::array<T, N>& value) {
  nlohmann::json list = nlohmann::json::array();
  for (const T& item : value) list.push_back(to_json(item));
  return list;
}
template <typename T>
nlohmann::json to_json(const std::vector<T>& value) {
  nlohmann::json list = nlohmann::json::array();
  for (const T& item : value) list.push_back(to_json(item));
  return list;
}
template <typename T, std::size_t N>
nlohmann::json to_json(const BoundedQueue<T, N>& value) {
  nlohmann::json list = nlohmann::json::array();
  for (std::size_t i = 0; i < value.size(); ++i) list.push_back(to_json(value[i]));
  return list;
}
template <typename T>
nlohmann::json to_json(const std::optional<T>& value) {
  return value ? to_json(*value) : nlohmann::json(nullptr);
}
template <typename T>
nlohmann::json to_json(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return nlohmann::json(static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (HasFields<T>) {
    nlohmann::json object = nlohmann::json::object();
    T::fields([&](const char* name, auto member) { object[name] = to_json(value.*member); });
    return object;
  } else {
    return nlohmann::json(value);
  }
}

template <typename T>
Result<void> from_json(const nlohmann::json& json, T& value);
template <typename T, std::size_t N>
Result<void> from_json(const nlohmann::json& json, std::array<T, N>& value);
template <typename T>
Result<void> from_json(const nlohmann::json& json, std::vector<T>& value);
template <typename T, std::size_t N>
Result<void> from_json(const nlohmann::json& json, BoundedQueue<T, N>& value);
template <typename T>
Result<void> from_json(const nlohmann::json& json, std::optional<T>& value);

template <typename T, std::size_t N>
Result<void> from_json(const nlohmann::json& json, std::array<T, N>& value) {
  if (!json.is_array() || json.size() != N) {
    return fail(ErrorCode::kBadState, "expected a list of {} elements", N);
  }
  for (std::size_t i = 0; i < N; ++i) VMM_TRY(from_json(json[i], value[i]));
  return {};
}
template <typename T>
Result<void> from_json(const nlohmann::json& json, std::vector<T>& value) {
  if (!json.is_array() || json.size() > kMaxElements) {
    return fail(ErrorCode::kBadState, "expected a list of at most {} elements", kMaxElements);
  }
  value.clear();
  for (const nlohmann::json& item : json) {
    T element{};
    VMM_TRY(from_json(item, element));
    value.push_back(std::move(element));
  }
  return {};
}
template <typename T, std::size_t N>
Result<void> from_json(const nlohmann::json& json, BoundedQueue<T, N>& value) {
  if (!json.is_array() || json.size() > N) {
    return fail(ErrorCode::kBadState, "expected a list of at most {} elements", N);
  }
  value.clear();
  for (const nlohmann::json& item : json) {
    T element{};
    VMM_TRY(from_json(item, element));
    value.push(element);
  }
  return {};
}
template <typename T>
Result<void> from_json(const nlohmann::json& json, std::optional<T>& value) {
  value.reset();
  if (json.is_null()) return {};
  T inner{};
  VMM_TRY(from_json(json, inner));
  value = std::move(inner);
  return {};
}

// An integer that fits T exactly: a saved 300 never becomes a register of 44.
template <std::integral T>
Result<void> integer_from_json(const nlohmann::json& json, T& value) {
  if (json.is_number_unsigned()) {
    const auto number = json.get<std::uint64_t>();
    if (std::in_range<T>(number)) {
      value = static_cast<T>(number);
      return {};
    }
  } else if (json.is_number_integer()) {
    const auto number = json.get<std::int64_t>();
    if (std::in_range<T>(number)) {
      value = static_cast<T>(number);
      return {};
    }
  }
  return fail(ErrorCode::kBadState, "expected an integer of {} bits, got {}", 8 * sizeof(T),
              json.dump());
}

template <typename T>
Result<void> from_json(const nlohmann::json& json, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return fail(ErrorCode::kBadState, "expected true or false");
    value = json.get<bool>();
    return {};
  } else if constexpr (std::is_enum_v<T>) {
    std::underlying_type_t<T> number{};
    VMM_TRY(integer_from_json(json, number));
    value = static_cast<T>(number);  // the owner's validate() knows which values exist
    return {};
  } else if constexpr (std::is_integral_v<T>) {
    return integer_from_json(json, value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return fail(ErrorCode::kBadState, "expected a string");
    value = json.get<std::string>();
    return {};
  } else {
    static_assert(HasFields<T>, "a saved structure lists its fields");
    if (!json.is_object()) return fail(ErrorCode::kBadState, "expected an object");
    Result<void> result;
    std::size_t known = 0;
    T::fields([&](const char* name, auto member) {
      ++known;
      if (!result) return;
      const auto found = json.find(name);
      if (found == json.end()) {
        result = fail(ErrorCode::kBadState, "field '{}' is missing", name);
        return;
      }
      auto field = from_json(*found, value.*member);
      if (!field) result = with_context(std::move(field), fmt::format("field '{}'", name));
    });
    if (result && json.size() != known) {
      return fail(ErrorCode::kBadState, "{} fields that this version does not know",
                  json.size() - known);
    }
    if constexpr (HasValidate<T>) {
      if (result) result = value.validate();
    }
    return result;
  }
}

}  // namespace detail

// Collects one device's state.
class StateWriter {
 public:
  template <typename State>
  void put(const State& state) {
    document_ = {{"type", State::kId.type},
                 {"version", State::kId.version},
                 {"state", detail::to_json(state)}};
  }
  // The state of another that is saved inside this one, after put().
  void put_part(const std::string& name, const StateWriter& part) {
    document_["parts"][name] = part.document();
  }
  const nlohmann::json& document() const noexcept { return document_; }

 private:
  nlohmann::json document_;
};

// Gives back what a StateWriter collected; the document is untrusted.
class StateReader {
 public:
  explicit StateReader(nlohmann::json document) : document_(std::move(document)) {}

  // Errors: kBadState naming the field; unknown type or version; missing, extra or ill-typed
  // fields; what State::validate() refuses.
  template <typename State>
  Result<State> get() const {
    if (!document_.is_object() || !document_.contains("type") || !document_.contains("version") ||
        !document_.contains("state")) {
      return fail(ErrorCode::kBadState, "Not a saved state: type, version or state is missing");
    }
    const nlohmann::json& type = document_["type"];
    const nlohmann::json& version = document_["version"];
    if (!type.is_string() || type.get_ref<const std::string&>() != State::kId.type) {
      return fail(ErrorCode::kBadState, "Saved state is of type {}, expected '{}'", type.dump(),
                  State::kId.type);
    }
    if (!version.is_number_integer() || version != State::kId.version) {
      return fail(ErrorCode::kBadState, "Saved state of '{}' has version {}, this program knows {}",
                  State::kId.type, version.dump(), State::kId.version);
    }
    State state;
    VMM_TRY(with_context(detail::from_json(document_["state"], state),
                         fmt::format("Read the saved state of '{}'", State::kId.type)));
    return state;
  }
  // What put_part() took. Errors: kBadState when there is no such part.
  Result<StateReader> part(const std::string& name) const {
    const nlohmann::json::json_pointer place = nlohmann::json::json_pointer("/parts") / name;
    if (!document_.is_object() || !document_.contains(place)) {
      return fail(ErrorCode::kBadState, "The saved state has no part '{}'", name);
    }
    return StateReader(document_[place]);
  }

 private:
  nlohmann::json document_;
};

// The fields of a state as JSON, for printing and comparison in tests.
template <typename State>
std::string describe(const State& state) {
  return detail::to_json(state).dump();
}

}  // namespace vmm

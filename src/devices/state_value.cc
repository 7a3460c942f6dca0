#include "devices/state_value.h"

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

namespace vmm {

using nlohmann::json;

void StateSlot::put_flag(bool value) const { *place_ = value; }
void StateSlot::put_unsigned(std::uint64_t value) const { *place_ = value; }
void StateSlot::put_signed(std::int64_t value) const { *place_ = value; }
void StateSlot::put_text(std::string_view value) const { *place_ = value; }
void StateSlot::put_bytes(std::span<const std::byte> value) const {
  const auto* const begin = reinterpret_cast<const std::uint8_t*>(value.data());
  *place_ = json::binary({begin, begin + value.size()});
}

void StateSlot::be_list() const { *place_ = json::array(); }
StateSlot StateSlot::element() const {
  place_->push_back(nullptr);
  return StateSlot(place_->back());
}
void StateSlot::be_structure() const { *place_ = json::object(); }
StateSlot StateSlot::member(const char* name) const { return StateSlot((*place_)[name]); }

bool StateView::is_nothing() const noexcept { return value_->is_null(); }

Result<bool> StateView::flag() const {
  if (!value_->is_boolean()) return fail(ErrorCode::kBadState, "expected true or false");
  return value_->get<bool>();
}

std::optional<std::uint64_t> StateView::as_unsigned() const {
  if (value_->is_number_unsigned()) return value_->get<std::uint64_t>();
  if (!value_->is_number_integer()) return std::nullopt;
  const auto number = value_->get<std::int64_t>();
  return std::in_range<std::uint64_t>(number) ? std::optional<std::uint64_t>(number) : std::nullopt;
}

std::optional<std::int64_t> StateView::as_signed() const {
  if (value_->is_number_unsigned()) {
    const auto number = value_->get<std::uint64_t>();
    if (!std::in_range<std::int64_t>(number)) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (!value_->is_number_integer()) return std::nullopt;
  return value_->get<std::int64_t>();
}

Result<std::string> StateView::text() const {
  if (!value_->is_string()) return fail(ErrorCode::kBadState, "expected a string");
  return value_->get<std::string>();
}

Result<std::span<const std::byte>> StateView::bytes() const {
  if (!value_->is_binary()) return fail(ErrorCode::kBadState, "expected bytes");
  return std::as_bytes(std::span(value_->get_binary()));
}

std::string StateView::shown() const {
  return value_->dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::size_t> StateView::list(std::size_t most) const {
  if (!value_->is_array() || value_->size() > most) {
    return fail(ErrorCode::kBadState, "expected a list of at most {} elements", most);
  }
  return value_->size();
}

Result<void> StateView::list_of(std::size_t elements) const {
  if (!value_->is_array() || value_->size() != elements) {
    return fail(ErrorCode::kBadState, "expected a list of {} elements", elements);
  }
  return {};
}

StateView StateView::element(std::size_t index) const { return StateView((*value_)[index]); }

Result<void> StateView::structure() const {
  if (!value_->is_object()) return fail(ErrorCode::kBadState, "expected an object");
  return {};
}

Result<StateView> StateView::member(const char* name) const {
  const auto found = value_->find(name);
  if (found == value_->end()) return fail(ErrorCode::kBadState, "field '{}' is missing", name);
  return StateView(*found);
}

Result<void> StateView::no_more_than(std::size_t known) const {
  if (value_->size() == known) return {};
  return fail(ErrorCode::kBadState, "{} fields that this version does not know",
              value_->size() - known);
}

// What is remembered is guarded; the JSON is not changed any more once there are two owners.
struct StateDocument::Value {
  Value() = default;
  explicit Value(nlohmann::json value) : document(std::move(value)) {}
  bool remembers_any() {
    const std::lock_guard lock(mutex);
    return type != nullptr || !parts.empty();
  }

  nlohmann::json document;
  std::mutex mutex;
  const std::type_info* type = nullptr;
  std::shared_ptr<const void> made;
  std::map<std::string, StateDocument> parts;  // by their pointers
};

StateDocument::StateDocument() : value_(std::make_shared<Value>()) {}
StateDocument::StateDocument(nlohmann::json value)
    : value_(std::make_shared<Value>(std::move(value))) {}
StateDocument::StateDocument(const StateDocument& other) = default;
StateDocument::StateDocument(StateDocument&& other) noexcept = default;
StateDocument& StateDocument::operator=(StateDocument other) noexcept {
  value_.swap(other.value_);
  return *this;
}
StateDocument::~StateDocument() = default;

const nlohmann::json& StateDocument::json() const noexcept { return value_->document; }

nlohmann::json& StateDocument::json() {
  if (value_.use_count() > 1 || value_->remembers_any()) {
    value_ = std::make_shared<Value>(value_->document);
  }
  return value_->document;
}

bool StateDocument::operator==(const StateDocument& other) const { return json() == other.json(); }

std::string StateDocument::text(int indent) const {
  return json().dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::shared_ptr<const void> StateDocument::made(const std::type_info& type) const {
  const std::lock_guard lock(value_->mutex);
  return value_->type != nullptr && *value_->type == type ? value_->made : nullptr;
}

void StateDocument::remember(const std::type_info& type, std::shared_ptr<const void> value) const {
  const std::lock_guard lock(value_->mutex);
  value_->type = &type;
  value_->made = std::move(value);
}

std::optional<StateDocument> StateDocument::at(const std::string& pointer) const {
  const std::lock_guard lock(value_->mutex);
  const auto known = value_->parts.find(pointer);
  if (known != value_->parts.end()) return known->second;
  const nlohmann::json::json_pointer place(pointer);
  const nlohmann::json& document = value_->document;
  if (!document.is_object() || !document.contains(place)) return std::nullopt;
  return value_->parts.emplace(pointer, StateDocument(document[place])).first->second;
}

}  // namespace vmm

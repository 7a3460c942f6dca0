#include "devices/state_value.h"

#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

namespace vmm {

using nlohmann::json;
using Kind = PackedState::Kind;

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

bool StateView::is_nothing() const noexcept {
  return document_->item(item_).kind == Kind::kNothing;
}

Result<bool> StateView::flag() const {
  const Kind kind = document_->item(item_).kind;
  if (kind != Kind::kTrue && kind != Kind::kFalse) {
    return fail(ErrorCode::kBadState, "expected true or false");
  }
  return kind == Kind::kTrue;
}

std::optional<std::uint64_t> StateView::as_unsigned() const noexcept {
  const PackedState::Item& item = document_->item(item_);
  if (item.kind != Kind::kUnsigned) return std::nullopt;
  return item.number;
}

std::optional<std::int64_t> StateView::as_signed() const noexcept {
  const PackedState::Item& item = document_->item(item_);
  if (!std::in_range<std::int64_t>(item.number)) return std::nullopt;
  const auto number = static_cast<std::int64_t>(item.number);
  if (item.kind == Kind::kUnsigned) return number;
  return item.kind == Kind::kNegative ? std::optional(-1 - number) : std::nullopt;
}

Result<std::string> StateView::text() const {
  const PackedState::Item& item = document_->item(item_);
  if (item.kind != Kind::kText) return fail(ErrorCode::kBadState, "expected a string");
  return std::string(document_->text(item));
}

Result<std::span<const std::byte>> StateView::bytes() const {
  const PackedState::Item& item = document_->item(item_);
  if (item.kind != Kind::kBytes) return fail(ErrorCode::kBadState, "expected bytes");
  return document_->bytes(item);
}

std::string StateView::shown() const {
  return document_->json(item_).dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::size_t> StateView::list(std::size_t most) const {
  const PackedState::Item& item = document_->item(item_);
  if (item.kind != Kind::kList || item.number > most) {
    return fail(ErrorCode::kBadState, "expected a list of at most {} elements", most);
  }
  return static_cast<std::size_t>(item.number);
}

Result<void> StateView::list_of(std::size_t elements) const {
  const PackedState::Item& item = document_->item(item_);
  if (item.kind != Kind::kList || item.number != elements) {
    return fail(ErrorCode::kBadState, "expected a list of {} elements", elements);
  }
  return {};
}

StateView StateView::first() const noexcept { return {*document_, item_ + 1}; }
StateView StateView::next() const noexcept { return {*document_, document_->item(item_).end}; }

Result<void> StateView::structure() const {
  if (document_->item(item_).kind != Kind::kStructure) {
    return fail(ErrorCode::kBadState, "expected an object");
  }
  return {};
}

Result<StateView> StateView::member(std::string_view name) const {
  const std::uint32_t end = document_->item(item_).end;
  for (std::uint32_t i = item_ + 1; i < end; i = document_->item(i + 1).end) {
    if (document_->text(document_->item(i)) == name) return StateView(*document_, i + 1);
  }
  return fail(ErrorCode::kBadState, "field '{}' is missing", name);
}

std::vector<std::pair<std::string_view, StateView>> StateView::members() const {
  std::vector<std::pair<std::string_view, StateView>> all;
  const std::uint32_t end = document_->item(item_).end;
  for (std::uint32_t i = item_ + 1; i < end; i = document_->item(i + 1).end) {
    all.emplace_back(document_->text(document_->item(i)), StateView(*document_, i + 1));
  }
  return all;
}

Result<void> StateView::no_more_than(std::size_t known) const {
  const std::uint64_t members = document_->item(item_).number;
  if (members == known) return {};
  return fail(ErrorCode::kBadState, "{} fields that this version does not know", members - known);
}

// What is remembered, and the forms, are guarded; the JSON is not changed any more once there are
// two owners.
struct StateDocument::Value {
  Value() : document(nlohmann::json()) {}
  explicit Value(nlohmann::json value) : document(std::move(value)) {}
  Value(std::shared_ptr<const PackedState> all, std::uint32_t at)
      : packed(std::move(all)), item(at) {}

  bool remembers_any() {
    const std::lock_guard lock(mutex);
    return type != nullptr || !members.empty();
  }
  const nlohmann::json& as_json() {
    const std::lock_guard lock(mutex);
    if (!document) document = packed->json(item);
    return *document;
  }
  StateView view() {
    const std::lock_guard lock(mutex);
    return view_locked();
  }
  StateView view_locked() {
    if (packed == nullptr) packed = std::make_shared<const PackedState>(PackedState::of(*document));
    return {*packed, item};
  }

  std::mutex mutex;  // guards the rest
  std::optional<nlohmann::json> document;
  std::shared_ptr<const PackedState> packed;  // this value is its `item`
  std::uint32_t item = 0;
  const std::type_info* type = nullptr;
  std::shared_ptr<const void> made;
  std::map<std::string, StateDocument, std::less<>> members;
};

StateDocument::StateDocument() : value_(std::make_shared<Value>()) {}
StateDocument::StateDocument(nlohmann::json value)
    : value_(std::make_shared<Value>(std::move(value))) {}
StateDocument::StateDocument(PackedState value)
    : value_(std::make_shared<Value>(std::make_shared<const PackedState>(std::move(value)), 0)) {}
StateDocument::StateDocument(std::shared_ptr<Value> value) noexcept : value_(std::move(value)) {}
StateDocument::StateDocument(const StateDocument& other) = default;
StateDocument::StateDocument(StateDocument&& other) noexcept = default;
StateDocument& StateDocument::operator=(StateDocument other) noexcept {
  value_.swap(other.value_);
  return *this;
}
StateDocument::~StateDocument() = default;

const nlohmann::json& StateDocument::json() const { return value_->as_json(); }
StateView StateDocument::view() const { return value_->view(); }

nlohmann::json& StateDocument::json() {
  if (value_.use_count() > 1 || value_->remembers_any()) {
    value_ = std::make_shared<Value>(value_->as_json());
  }
  (void)value_->as_json();
  value_->packed = nullptr;  // the caller changes the other
  value_->item = 0;
  return *value_->document;
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

std::optional<StateDocument> StateDocument::member(std::string_view name) const {
  const std::lock_guard lock(value_->mutex);
  const auto known = value_->members.find(name);
  if (known != value_->members.end()) return known->second;
  const StateView view = value_->view_locked();
  if (!view.structure()) return std::nullopt;
  const Result<StateView> found = view.member(name);
  if (!found) return std::nullopt;
  return value_->members.emplace(name, part(*found)).first->second;
}

StateDocument StateDocument::part(StateView view) const {
  return StateDocument(std::make_shared<Value>(value_->packed, view.item_));
}

}  // namespace vmm

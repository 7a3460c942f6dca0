#include "devices/state_io.h"

#include <nlohmann/json.hpp>

namespace vmm {

StateSlot StateWriter::begin(StateId id) {
  nlohmann::json& document = document_.json();
  document = {{"type", id.type}, {"version", id.version}, {"state", nullptr}};
  return StateSlot(document["state"]);
}

void StateWriter::put_part(const std::string& name, const StateWriter& part) {
  document_.json()["parts"][name] = part.document();
}

StateReader::StateReader(nlohmann::json document) : document_(std::move(document)) {}

Result<StateView> StateReader::begin(StateId id) const {
  const StateView document = document_.view();
  if (!document.structure() || !document.member("type") || !document.member("version") ||
      !document.member("state")) {
    return fail(ErrorCode::kBadState, "Not a saved state: type, version or state is missing");
  }
  const StateView type = *document.member("type");
  const StateView version = *document.member("version");
  if (type.text().value_or("") != id.type) {
    return fail(ErrorCode::kBadState, "Saved state is of type {}, expected '{}'", type.shown(),
                id.type);
  }
  if (version.as_unsigned() != id.version) {
    return fail(ErrorCode::kBadState, "Saved state of '{}' has version {}, this program knows {}",
                id.type, version.shown(), id.version);
  }
  return *document.member("state");
}

Result<StateReader> StateReader::part(const std::string& name) const {
  const auto parts = document_.member("parts");
  auto part = parts ? parts->member(name) : std::nullopt;
  if (part) return StateReader(*std::move(part));
  return fail(ErrorCode::kBadState, "The saved state has no part '{}'", name);
}

}  // namespace vmm

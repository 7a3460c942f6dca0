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
  const nlohmann::json& document = document_.json();
  if (!document.is_object() || !document.contains("type") || !document.contains("version") ||
      !document.contains("state")) {
    return fail(ErrorCode::kBadState, "Not a saved state: type, version or state is missing");
  }
  const nlohmann::json& type = document["type"];
  const nlohmann::json& version = document["version"];
  if (!type.is_string() || type.get_ref<const std::string&>() != id.type) {
    return fail(ErrorCode::kBadState, "Saved state is of type {}, expected '{}'", type.dump(),
                id.type);
  }
  if (!version.is_number_integer() || version != id.version) {
    return fail(ErrorCode::kBadState, "Saved state of '{}' has version {}, this program knows {}",
                id.type, version.dump(), id.version);
  }
  return StateView(document["state"]);
}

Result<StateReader> StateReader::part(const std::string& name) const {
  const nlohmann::json::json_pointer place = nlohmann::json::json_pointer("/parts") / name;
  if (auto part = document_.at(place.to_string())) return StateReader(*std::move(part));
  return fail(ErrorCode::kBadState, "The saved state has no part '{}'", name);
}

}  // namespace vmm

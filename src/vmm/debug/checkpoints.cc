#include "vmm/debug/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/join.h"

namespace vmm::debug {

const std::string& Checkpoints::add(std::string_view name, std::shared_ptr<const Snapshot> snapshot,
                                    std::uint64_t pc) {
  const std::string wanted = name.empty() ? fmt::format("{}", ++numbered_) : std::string(name);
  std::erase_if(all_, [&](const Checkpoint& known) { return known.name == wanted; });
  if (all_.size() == kMost) all_.pop_front();
  all_.push_back({.name = wanted, .snapshot = std::move(snapshot), .pc = pc});
  return all_.back().name;
}

Result<const Checkpoints::Checkpoint*> Checkpoints::find(std::string_view name) const {
  if (all_.empty()) {
    return fail(ErrorCode::kBadConfig, "There is no checkpoint: \"monitor checkpoint\" makes one");
  }
  if (name.empty()) return &all_.back();
  const auto found = std::find_if(all_.begin(), all_.end(),
                                  [&](const Checkpoint& known) { return known.name == name; });
  if (found != all_.end()) return &*found;
  std::vector<std::string> names;
  for (const Checkpoint& known : all_) names.push_back(known.name);
  return fail(ErrorCode::kBadConfig, "There is no checkpoint '{}': there are {}", name,
              join(names, ", "));
}

}  // namespace vmm::debug

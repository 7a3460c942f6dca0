// What differs between two snapshots, as text and JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory/address.h"
#include "vmm/snapshot/symbol_difference.h"

namespace vmm::cli {

// A value of the machine's state: registers, devices' fields. Of one that only one of them has, the
// other is empty.
struct ChangedValue {
  std::string path;  // "cpus[0].registers.rip"
  std::string before, after;
};

// By Snapshot::to_json() of both, in the order of the paths. Numbers are hexadecimal; of long texts
// (a device's memory) only their length is told.
std::vector<ChangedValue> changed_values(const nlohmann::json& before, const nlohmann::json& after);

struct SnapshotDifference {
  std::vector<ChangedValue> values;
  std::vector<GpaRange> memory;
  std::string memory_problem;  // why memory could not be compared, or empty
  std::uint64_t memory_size = 0;
  std::optional<std::vector<ChangedSymbol>> symbols = {};  // if they were asked for

  bool empty() const { return values.empty() && memory.empty() && memory_problem.empty(); }
};

// Of memory and of symbols at most `most_ranges` are listed.
std::string diff_text(const SnapshotDifference& difference, std::size_t most_ranges);
std::string diff_json(const SnapshotDifference& difference);

}  // namespace vmm::cli

#include "cli/diff_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/diff_text.h"
#include "cli/exit_code.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm::cli {
namespace {

constexpr std::size_t kMostRanges = 100;

// A file whose checksums are right: what is damaged would look like a difference.
Result<std::shared_ptr<const Snapshot>> open_sound(const std::string& file) {
  auto snapshot = VMM_TRY(Snapshot::open(file));
  VMM_TRY(with_context(snapshot->verify(), file));
  return snapshot;
}

Result<SnapshotDifference> compare(const DiffCommand& command) {
  const auto before = VMM_TRY(open_sound(command.before));
  const auto after = VMM_TRY(open_sound(command.after));
  SnapshotDifference difference{.values = changed_values(nlohmann::json::parse(before->to_json()),
                                                         nlohmann::json::parse(after->to_json())),
                                .memory = {},
                                .memory_problem = {},
                                .memory_size = before->memory()};
  auto memory = before->memory_difference(*after);
  if (memory) {
    difference.memory = *std::move(memory);
  } else {
    difference.memory_problem = memory.error().message();
  }
  if (!command.symbols.empty()) {
    const auto symbols = VMM_TRY(debug::Symbols::load(command.symbols));
    difference.symbols = VMM_TRY(
        with_context(changed_symbols(*before, *after, symbols), "Find what changed by symbol"));
  }
  return difference;
}

}  // namespace

int diff_command(const DiffCommand& command) {
  const auto difference = compare(command);
  if (!difference) {
    std::fputs(fmt::format("vmm diff: {}\n", difference.error().message()).c_str(), stderr);
    return kExitBadKernel;
  }
  const std::string text =
      command.json ? diff_json(*difference) : diff_text(*difference, kMostRanges);
  std::fputs(text.c_str(), stdout);
  return difference->empty() ? kExitOk : kExitHostError;
}

}  // namespace vmm::cli

#include "cli/profile_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/control_client.h"
#include "cli/exit_code.h"
#include "cli/flame_graph.h"
#include "cli/write_output.h"

namespace vmm::cli {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

void add(const json& answer, FoldedStacks& stacks) {
  for (const json& sample : answer.at("stacks")) {
    auto frames = sample.at("frames").get<std::vector<std::string>>();
    if (sample.at("user").get<bool>()) {
      // One name for all: their addresses are those of processes that nobody knows here.
      frames = {"[user]"};
    }
    std::reverse(frames.begin(), frames.end());
    frames.insert(frames.begin(), fmt::format("vCPU {}", sample.at("cpu").get<unsigned>()));
    ++stacks[frames];
  }
}

Result<FoldedStacks> sample(const ProfileCommand& command) {
  FoldedStacks stacks;
  const auto end = steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                             std::chrono::duration<double>(command.seconds));
  const auto period = std::chrono::nanoseconds(std::chrono::seconds(1)) / command.hz;
  for (auto due = steady_clock::now(); due < end;) {
    const json answer = VMM_TRY(ask_control(command.socket, "sample", json::object()));
    try {
      add(answer, stacks);
    } catch (const json::exception& error) {
      return fail(ErrorCode::kIo, "The answer cannot be understood: {}", error.what());
    }
    // What was missed is not made up for: samples would come in clusters.
    due = std::max(due + period, steady_clock::now());
    std::this_thread::sleep_until(std::min(due, end));
  }
  return stacks;
}

Result<void> run(const ProfileCommand& command) {
  const FoldedStacks stacks = VMM_TRY(sample(command));
  std::uint64_t count = 0;
  for (const auto& [stack, times] : stacks) count += times;
  const std::string title = fmt::format("{} samples of all CPUs in {} s", count, command.seconds);
  return write_output(command.output, command.output.ends_with(".svg") ? flame_graph(stacks, title)
                                                                       : folded_text(stacks));
}

}  // namespace

int profile_command(const ProfileCommand& command) {
  const Result<void> done = run(command);
  if (done) return kExitOk;
  std::fputs(fmt::format("vmm profile: {}\n", done.error().message()).c_str(), stderr);
  return exit_code(done.error());
}

}  // namespace vmm::cli

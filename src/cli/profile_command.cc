#include "cli/profile_command.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <csignal>
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

volatile std::sig_atomic_t interrupted = 0;

// Ctrl-C ends the sampling, not what was sampled; pressed again, it ends the command.
void end_on_interrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = SA_RESTART | SA_RESETHAND;
  (void)::sigaction(SIGINT, &action, nullptr);
}

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

// Errors: why it ended early, with what there was until then in `stacks`.
Result<void> sample(const ProfileCommand& command, FoldedStacks& stacks) {
  const auto end = steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                             std::chrono::duration<double>(command.seconds));
  const auto period = std::chrono::nanoseconds(std::chrono::seconds(1)) / command.hz;
  for (auto due = steady_clock::now(); due < end && interrupted == 0;) {
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
  return {};
}

Result<void> run(const ProfileCommand& command) {
  OutputFile output = VMM_TRY(OutputFile::open(command.output));
  end_on_interrupt();
  FoldedStacks stacks;
  const auto begin = steady_clock::now();
  const auto sampled = sample(command, stacks);
  if (!sampled) {
    if (stacks.empty()) return sampled;
    // Most often the guest has ended, which makes its profile no worse.
    std::fputs(fmt::format("vmm profile: ended early: {}\n", sampled.error().message()).c_str(),
               stderr);
  }
  const std::chrono::duration<double> took = steady_clock::now() - begin;
  std::uint64_t count = 0;
  for (const auto& [stack, times] : stacks) count += times;
  const std::string title = fmt::format("{} samples of all CPUs in {:.3g} s", count, took.count());
  return output.finish(command.output.ends_with(".svg") ? flame_graph(stacks, title)
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

#include "cli/test_command.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <string_view>

#include "cli/exit_code.h"
#include "cli/test_process.h"
#include "cli/test_report.h"
#include "cli/write_output.h"

namespace vmm::cli {
namespace {

void say(std::string_view text) { std::fputs(fmt::format("vmm test: {}\n", text).c_str(), stderr); }

// The tests of one command: some run, some have ended, and their outcomes are told in order.
class TestSession {
 public:
  explicit TestSession(const TestCommand& command)
      : command_(command), outcomes_(command.images.size()) {}

  // Errors: of the host, or none of /dev/kvm.
  Result<void> run() {
    print(tap_plan(outcomes_.size()));
    while (told_ < outcomes_.size()) {
      while (running_.size() < command_.jobs && next_ < outcomes_.size()) {
        running_.emplace(next_,
                         VMM_TRY(TestProcess::start(command_.images[next_], command_.rules)));
        ++next_;
      }
      wait();
      VMM_TRY(collect());
    }
    return {};
  }

  std::vector<TestOutcome> outcomes() const {
    std::vector<TestOutcome> all;
    for (const auto& outcome : outcomes_) {
      if (outcome) all.push_back(*outcome);
    }
    return all;
  }

 private:
  static void print(const std::string& text) {
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }

  void wait() {
    std::vector<pollfd> fds;
    auto until = TestProcess::Clock::time_point::max();
    for (const auto& [number, test] : running_) {
      const std::vector<pollfd> more = test.watched();
      fds.insert(fds.end(), more.begin(), more.end());
      until = std::min(until, test.deadline());
    }
    int milliseconds = -1;
    if (until != TestProcess::Clock::time_point::max()) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(until - TestProcess::Clock::now());
      milliseconds = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
    }
    (void)::poll(fds.data(), fds.size(), milliseconds);
  }

  Result<void> collect() {
    for (auto it = running_.begin(); it != running_.end();) {
      it->second.serve();
      if (!it->second.is_over()) {
        ++it;
        continue;
      }
      outcomes_[it->first] = it->second.outcome();
      const TestOutcome& outcome = *outcomes_[it->first];
      it = running_.erase(it);
      if (outcome.exit_status == kExitNoKvm) {
        print(fmt::format("Bail out! {}\n", outcome.message));
        return fail(ErrorCode::kNoKvm, "{}", outcome.message);
      }
    }
    for (; told_ < outcomes_.size() && outcomes_[told_]; ++told_) {
      print(tap_result(told_ + 1, *outcomes_[told_]));
    }
    return {};
  }

  const TestCommand& command_;
  std::vector<std::optional<TestOutcome>> outcomes_;
  std::map<std::size_t, TestProcess> running_;  // by the number of their image
  std::size_t next_ = 0;                        // to be started
  std::size_t told_ = 0;
};

Result<int> run(const TestCommand& command) {
  std::optional<OutputFile> junit;
  if (!command.junit.empty()) junit.emplace(VMM_TRY(OutputFile::open(command.junit)));
  TestSession session(command);
  VMM_TRY(session.run());
  const std::vector<TestOutcome> outcomes = session.outcomes();
  if (std::ferror(stdout) != 0) return fail(ErrorCode::kIo, "The outcome could not be written");
  if (junit) VMM_TRY(junit->finish(junit_xml(outcomes)));
  const auto passed = static_cast<std::size_t>(std::count_if(
      outcomes.begin(), outcomes.end(), [](const TestOutcome& test) { return test.passed; }));
  say(fmt::format("{} passed, {} failed", passed, outcomes.size() - passed));
  return passed == outcomes.size() ? kExitOk : kExitHostError;
}

}  // namespace

int test_command(const TestCommand& command) {
  // A reader of ours that goes away is an error of write(2).
  ::signal(SIGPIPE, SIG_IGN);
  const Result<int> status = run(command);
  if (status) return *status;
  say(status.error().message());
  return exit_code(status.error());
}

}  // namespace vmm::cli

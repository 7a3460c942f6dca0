// One `vmm run` of `vmm test`: a process of its own, so that no image can disturb another.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "cli/test_outcome.h"
#include "cli/test_rules.h"

namespace vmm::cli {

// The arguments of `vmm run` for one image, "run" first and without --result.
std::vector<std::string> test_arguments(const std::string& image, const TestRules& rules);

// Made by start(); whoever owns it polls watched(), then calls serve(), until is_over(). The
// process gets a signal to end when the thread that made it dies, and is killed by the destructor.
// One thread. Errors of reading become part of the outcome.
class TestProcess {
 public:
  using Clock = std::chrono::steady_clock;

  // Errors: kResource, kIo.
  static Result<TestProcess> start(const std::string& image, const TestRules& rules);
  TestProcess(TestProcess&& other) noexcept;
  TestProcess& operator=(TestProcess&&) = delete;
  ~TestProcess();

  // What to wait for, and until when at the latest.
  std::vector<pollfd> watched() const;
  Clock::time_point deadline() const noexcept { return deadline_; }
  // Takes what is there; kills the process when its deadline has passed. Never waits.
  void serve();
  bool is_over() const noexcept { return over_; }
  // Once, when it is over.
  TestOutcome outcome();

 private:
  enum Stream : std::size_t { kConsole, kMessages, kResult, kStreams };

  TestProcess(std::string image, std::uint32_t pass_value, Clock::time_point deadline)
      : pass_value_(pass_value), deadline_(deadline) {
    outcome_.image = std::move(image);
  }
  Result<void> spawn(const std::vector<std::string>& arguments);
  void read_streams();
  void judge(int wait_status);

  TestOutcome outcome_;
  std::uint32_t pass_value_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point deadline_;
  pid_t pid_ = -1;
  UniqueFd process_;  // a pidfd: readable when it has ended
  std::array<UniqueFd, kStreams> streams_;
  std::string result_;  // the JSON of --result
  bool late_ = false;   // killed, since its own --timeout did not end it
  bool over_ = false;
};

}  // namespace vmm::cli

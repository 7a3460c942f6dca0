#include "cli/test_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/exit_code.h"

namespace vmm::cli {
namespace {

// How long a guest's process may go on after --timeout should have ended it.
constexpr std::chrono::seconds kGrace{15};
// Of a stream's text so much is kept, its end.
constexpr std::size_t kMostText = 256 * 1024;
// Where the process finds the pipe for --result.
constexpr int kResultFd = 3;
constexpr const char* kResultPath = "/dev/fd/3";

struct Pipe {
  UniqueFd reader, writer;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends;
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "Make a pipe for a test");
  Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) return fail_errno(errno, "Set up a test's pipe");
  return pipe;
}

void keep_end(std::string& text) {
  // In large steps: moving the text for each piece would be slow.
  if (text.size() > 2 * kMostText) text.erase(0, text.size() - kMostText);
}

// In the child; only what is allowed between fork and exec of a program that may have threads.
[[noreturn]] void become_run(const std::array<int, 4>& files, char* const* arguments,
                             pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kExitInterrupted);  // died meanwhile
  // Above all targets first, so that none is overwritten before it is moved.
  std::array<int, 4> moved;
  for (std::size_t i = 0; i < files.size(); ++i) {
    moved[i] = ::fcntl(files[i], F_DUPFD, kResultFd + 1);
    if (moved[i] < 0) ::_exit(kExitHostError);
  }
  for (std::size_t i = 0; i < moved.size(); ++i) {
    if (::dup2(moved[i], static_cast<int>(i)) < 0) ::_exit(kExitHostError);
    ::close(moved[i]);
  }
  ::execv("/proc/self/exe", arguments);
  ::_exit(kExitHostError);
}

std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const std::size_t at = text.rfind('\n');
  return std::string(at == std::string_view::npos ? text : text.substr(at + 1));
}

}  // namespace

std::vector<std::string> test_arguments(const std::string& image, const TestRules& rules) {
  std::vector<std::string> arguments{
      "run", "--kernel=" + image, "--no-reboot",
      fmt::format("--timeout={:.3f}", std::chrono::duration<double>(rules.timeout).count())};
  arguments.insert(arguments.end(), rules.run_options.begin(), rules.run_options.end());
  return arguments;
}

Result<TestProcess> TestProcess::start(const std::string& image, const TestRules& rules) {
  TestProcess test(
      image, rules.pass_value,
      Clock::now() + kGrace + std::chrono::duration_cast<Clock::duration>(rules.timeout));
  std::vector<std::string> arguments = test_arguments(image, rules);
  arguments.insert(arguments.begin(), "vmm");
  arguments.insert(arguments.begin() + 2, fmt::format("--result={}", kResultPath));
  VMM_TRY(test.spawn(arguments));
  return test;
}

Result<void> TestProcess::spawn(const std::vector<std::string>& arguments) {
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!nothing) return fail_errno(errno, "Open /dev/null");
  std::array<int, 4> files{nothing.get()};
  std::array<Pipe, kStreams> pipes;
  for (std::size_t i = 0; i < kStreams; ++i) {
    pipes[i] = VMM_TRY(make_pipe());
    files[i + 1] = pipes[i].writer.get();
  }
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));  // NOLINT: execv() changes none
  }
  pointers.push_back(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) return fail_errno(errno, "Start a process for a test");
  if (pid_ == 0) become_run(files, pointers.data(), parent);
  for (std::size_t i = 0; i < kStreams; ++i) streams_[i] = std::move(pipes[i].reader);
  // By number: the header of glibc 2.36 is not for C++.
  process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (!process_) return fail_errno(errno, "Watch the process of a test");
  return {};
}

TestProcess::TestProcess(TestProcess&& other) noexcept
    : outcome_(std::move(other.outcome_)),
      pass_value_(other.pass_value_),
      begin_(other.begin_),
      deadline_(other.deadline_),
      pid_(std::exchange(other.pid_, -1)),
      process_(std::move(other.process_)),
      streams_(std::move(other.streams_)),
      result_(std::move(other.result_)),
      late_(other.late_),
      over_(other.over_) {}

TestProcess::~TestProcess() {
  if (pid_ < 0 || over_) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::vector<pollfd> TestProcess::watched() const {
  std::vector<pollfd> fds{{.fd = process_.get(), .events = POLLIN, .revents = 0}};
  for (const UniqueFd& stream : streams_) {
    if (stream) fds.push_back({.fd = stream.get(), .events = POLLIN, .revents = 0});
  }
  return fds;
}

void TestProcess::read_streams() {
  const std::array<std::string*, kStreams> texts{&outcome_.console, &outcome_.messages, &result_};
  std::array<char, 16 * 1024> piece;
  for (std::size_t i = 0; i < kStreams; ++i) {
    // A guest that never ends its output must not keep us here.
    for (int turn = 0; turn < 16 && streams_[i]; ++turn) {
      const ssize_t n = ::read(streams_[i].get(), piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) break;
      if (n <= 0) {
        streams_[i].reset();
        break;
      }
      texts[i]->append(piece.data(), static_cast<std::size_t>(n));
      keep_end(*texts[i]);
    }
  }
}

void TestProcess::serve() {
  if (over_) return;
  if (!late_ && Clock::now() >= deadline_) {
    late_ = true;
    deadline_ = Clock::time_point::max();
    ::kill(pid_, SIGKILL);
  }
  int status = 0;
  const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
  // What it wrote last is there before its end is seen; what its children write later is not ours.
  read_streams();
  if (ended != pid_) return;
  over_ = true;
  for (UniqueFd& stream : streams_) stream.reset();
  judge(status);
}

void TestProcess::judge(int wait_status) {
  outcome_.duration = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin_);
  if (WIFSIGNALED(wait_status)) {
    outcome_.message = late_ ? "vmm run did not end by itself and was killed"
                             : fmt::format("vmm run died of signal {}", WTERMSIG(wait_status));
    return;
  }
  outcome_.exit_status = WEXITSTATUS(wait_status);
  const auto json = nlohmann::json::parse(result_, nullptr, false);
  if (!json.is_object()) {
    // It did not come so far that it could say more.
    outcome_.message = fmt::format("vmm run ended with status {}: {}", outcome_.exit_status,
                                   last_line(outcome_.messages));
    return;
  }
  outcome_.message = json.value("message", "");
  const std::string reason = json.value("reason", "");
  outcome_.passed = reason == to_string(StopReason::kPowerOff) ||
                    (reason == to_string(StopReason::kDebugExit) &&
                     json.value("value", pass_value_ + 1) == pass_value_);
}

TestOutcome TestProcess::outcome() {
  if (outcome_.console.size() > kMostText) {
    outcome_.console.erase(0, outcome_.console.size() - kMostText);
  }
  if (outcome_.messages.size() > kMostText) {
    outcome_.messages.erase(0, outcome_.messages.size() - kMostText);
  }
  return std::move(outcome_);
}

}  // namespace vmm::cli

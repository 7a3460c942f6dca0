#include "vmm/vhost/child_process.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace vmm::vhost {
namespace {

constexpr int kPatience = 2000;  // milliseconds for one to die

// All that the new process needs, made before the fork: after it, only system calls are safe.
struct Prepared {
  char* const* arguments;
  int socket;
  const char* read_only_directory;  // or nullptr
  pid_t parent;
};

// Makes what this process, and what it starts, sees of the directory read-only.
bool mount_read_only(const char* directory) {
  if (::unshare(CLONE_NEWNS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  if (::mount(directory, directory, nullptr, MS_BIND | MS_REC, nullptr) != 0) return false;
  ::mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  return ::syscall(SYS_mount_setattr, AT_FDCWD, directory, AT_RECURSIVE, &attributes,
                   sizeof attributes) == 0;
}

void complain(const char* text) {
  std::size_t length = 0;
  while (text[length] != '\0') ++length;
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text, length);
}

[[noreturn]] void run(const Prepared& prepared) {
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != prepared.parent) ::_exit(1);  // who died before that call
  // Its own handlers and masks, not ours.
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nowhere = ::open("/dev/null", O_RDWR);
  if (nowhere < 0 || ::dup2(nowhere, STDIN_FILENO) < 0 || ::dup2(nowhere, STDOUT_FILENO) < 0) {
    ::_exit(1);
  }
  // Never the same number, which would keep close-on-exec.
  const int high = ::fcntl(prepared.socket, F_DUPFD, ChildProcess::kSocket + 1);
  if (high < 0 || ::dup2(high, ChildProcess::kSocket) < 0) ::_exit(1);
  ::syscall(SYS_close_range, ChildProcess::kSocket + 1, ~0U, 0);
  if (prepared.read_only_directory != nullptr && !mount_read_only(prepared.read_only_directory)) {
    complain("vmm: a shared directory cannot be made read-only here: that takes root\n");
    ::_exit(1);
  }
  ::execv(prepared.arguments[0], prepared.arguments);
  ::_exit(127);
}

}  // namespace

Result<ChildProcess> ChildProcess::start(Launch launch) {
  std::vector<char*> arguments;
  for (std::string& word : launch.words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const Prepared prepared{.arguments = arguments.data(),
                          .socket = launch.socket,
                          .read_only_directory = launch.read_only_directory.empty()
                                                     ? nullptr
                                                     : launch.read_only_directory.c_str(),
                          .parent = ::getpid()};
  const pid_t process = ::fork();
  if (process < 0) return fail_errno(errno, "Start {}", launch.words.front());
  if (process == 0) run(prepared);
  return ChildProcess(process);
}

ChildProcess::ChildProcess(pid_t process)
    : process_(process), pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, process, 0))) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : process_(std::exchange(other.process_, -1)), pidfd_(std::move(other.pidfd_)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    stop();
    process_ = std::exchange(other.process_, -1);
    pidfd_ = std::move(other.pidfd_);
  }
  return *this;
}

ChildProcess::~ChildProcess() { stop(); }

void ChildProcess::stop() {
  if (process_ < 0) return;
  // It may have children of its own, all in its session's process group. Nobody else can have that
  // number as long as the child is not waited for.
  (void)::kill(-process_, SIGKILL);
  (void)::kill(process_, SIGKILL);
  ::pollfd fd{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  if (pidfd_) (void)::poll(&fd, 1, kPatience);
  // Whoever hangs in the kernel does not take us with it.
  (void)::waitpid(process_, nullptr, pidfd_ ? WNOHANG : 0);
  process_ = -1;
  pidfd_.reset();
}

}  // namespace vmm::vhost

#include "vmm/net/passt.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

namespace vmm {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kProgram = "passt";
constexpr milliseconds kStartPatience = 10s, kStopPatience = 1s, kLook = 2ms;
// Descriptors of the child.
constexpr int kErrors = 2, kSocket = 3;

// A child process that ends no later than this.
class Child final : public StreamBackend::Peer {
 public:
  Child(::pid_t pid, UniqueFd handle) : pid_(pid), handle_(std::move(handle)) {}
  // Its socket is closed: it is about to end by itself.
  ~Child() override {
    if (!wait(kStopPatience)) ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  // Whether it has ended. Without pidfd_open(2) that is not to be known without taking its status.
  bool wait(milliseconds patience) const {
    ::pollfd ended{.fd = handle_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ended, 1, static_cast<int>(patience.count())) > 0;
  }

 private:
  ::pid_t pid_;
  UniqueFd handle_;
};

// posix_spawn(3) and what it is given, freed together.
class Spawner {
 public:
  Spawner() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    ::sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setpgroup(&attributes_, 0);  // a terminal's signals are not for it
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~Spawner() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  void give(int fd, int as) { ::posix_spawn_file_actions_adddup2(&actions_, fd, as); }
  void give_nothing(int as) {
    ::posix_spawn_file_actions_addopen(&actions_, as, "/dev/null", O_RDWR, 0);
  }
  // An errno value, or 0.
  int run(const char* program, char* const* arguments, ::pid_t& pid) {
    return ::posix_spawnp(&pid, program, &actions_, &attributes_, arguments, environ);
  }

 private:
  ::posix_spawn_file_actions_t actions_;
  ::posix_spawnattr_t attributes_;
};

Result<std::unique_ptr<Child>> spawn(int socket, int errors) {
  Spawner spawner;
  spawner.give_nothing(0);
  spawner.give_nothing(1);
  spawner.give(errors, kErrors);
  spawner.give(socket, kSocket);
  std::array<std::string, 6> words{kProgram,   "--foreground", "--quiet",
                                   "--stderr", "--fd",         std::to_string(kSocket)};
  std::array<char*, words.size() + 1> arguments{};
  for (std::size_t i = 0; i < words.size(); ++i) arguments[i] = words[i].data();
  ::pid_t pid = 0;
  const int error = spawner.run(kProgram, arguments.data(), pid);
  if (error == ENOENT) {
    return fail(ErrorCode::kUnsupported,
                "The program passt is not in PATH: install the package passt, or use --net user");
  }
  if (error != 0) return fail_errno(error, "Start {}", kProgram);
  UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int no_handle = handle ? 0 : errno;
  auto child = std::make_unique<Child>(pid, std::move(handle));
  if (no_handle != 0) return fail_errno(no_handle, "Watch the process of {}", kProgram);
  return child;
}

// The last line that it wrote, which tells why it ended.
std::string last_line(int file) {
  std::array<char, 4096> text;
  const ::off_t size = ::lseek(file, 0, SEEK_END);
  const ::off_t from = size > ::off_t{text.size()} ? size - ::off_t{text.size()} : 0;
  const ssize_t got = ::pread(file, text.data(), text.size(), from);
  std::string all(text.data(), static_cast<std::size_t>(got > 0 ? got : 0));
  while (!all.empty() && (all.back() == '\n' || all.back() == ' ')) all.pop_back();
  const auto newline = all.rfind('\n');
  if (newline != std::string::npos) all.erase(0, newline + 1);
  return all.empty() ? "it said nothing" : all;
}

// A frame of a type for experiments (IEEE 802, 0x88b5), to everybody, with nothing in it.
bool send_first_frame(int socket) {
  std::array<unsigned char, 4 + 60> bytes{0, 0, 0, 60, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2};
  bytes[4 + 12] = 0x88;
  bytes[4 + 13] = 0xb5;
  return ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

Result<void> wait_until_ready(const Child& child, int socket, int errors) {
  const auto end = steady_clock::now() + kStartPatience;
  bool sent = send_first_frame(socket);
  while (sent && steady_clock::now() < end) {
    if (child.wait(kLook)) break;
    int unread = 0;
    if (::ioctl(socket, SIOCOUTQ, &unread) == 0 && unread == 0) return {};
  }
  if (child.wait(sent ? 0ms : kStopPatience)) {
    return fail(ErrorCode::kIo, "passt has ended: {}", last_line(errors));
  }
  return fail(ErrorCode::kTimeout, "passt does not read what is sent to it");
}

}  // namespace

Result<std::unique_ptr<StreamBackend>> start_passt() {
  std::array<int, 2> both{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both.data()) != 0) {
    return fail_errno(errno, "Create a pair of sockets");
  }
  UniqueFd ours(both[0]), theirs(both[1]);
  const UniqueFd errors(::memfd_create("passt-errors", MFD_CLOEXEC));
  if (!errors) return fail_errno(errno, "Create a file in memory");
  auto child = VMM_TRY(spawn(theirs.get(), errors.get()));
  theirs.reset();
  auto ready = wait_until_ready(*child, ours.get(), errors.get());
  if (!ready) {
    ours.reset();
    return tl::unexpected<Error>(ready.error());
  }
  return StreamBackend::create(std::move(ours), std::move(child));
}

}  // namespace vmm

#include "vmm/snapshot/frozen_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace vmm {
namespace {

// All that the process does. Other threads of this one may have held any lock: no function that
// takes one, nothing but system calls.
[[noreturn]] void hold(int life, int other_end) {
  ::close(other_end);
  const auto fd = static_cast<unsigned>(life);
  (void)::syscall(SYS_close_range, fd + 1, ~0U, 0);
  if (fd > 0) (void)::syscall(SYS_close_range, 0, fd - 1, 0);
  (void)::prctl(PR_SET_NAME, "vmm-frozen");
  char none = 0;
  while (::syscall(SYS_read, life, &none, 1) < 0 && errno == EINTR) continue;
  ::syscall(SYS_exit_group, 0);
  __builtin_unreachable();
}

// Signals for this process are not for that one: it has inherited the handlers.
class AllBlocked {
 public:
  AllBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  AllBlocked(const AllBlocked&) = delete;
  AllBlocked& operator=(const AllBlocked&) = delete;
  ~AllBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

Result<std::vector<FrozenMemory::Piece>> private_ram(const GuestMemory& memory) {
  std::vector<FrozenMemory::Piece> pieces;
  for (const GuestRegion& region : memory.regions()) {
    if (region.kind() != RegionKind::kRam) continue;
    if (region.fd() >= 0) {
      return fail(ErrorCode::kUnsupported,
                  "the guest's memory at GPA {} is a file that other processes may have mapped, or "
                  "huge pages: it cannot be copied on write",
                  region.range().base());
    }
    pieces.push_back({.range = region.range(), .hva = region.hva()});
  }
  return pieces;
}

}  // namespace

Result<FrozenMemory> FrozenMemory::create(const GuestMemory& memory) {
  std::vector<Piece> pieces = VMM_TRY(private_ram(memory));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "Create a pipe");
  UniqueFd theirs(ends[0]), ours(ends[1]);
  pid_t process = -1;
  {
    const AllBlocked blocked;
    // As fork(2), but nobody is signalled when it ends: a program that embeds this may wait for
    // children of its own.
    process = static_cast<pid_t>(::syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr));
    if (process == 0) hold(theirs.get(), ours.get());
  }
  if (process < 0) return fail_errno(errno, "Copy the address space");
  FrozenMemory frozen(std::move(pieces), process, std::move(ours));
  // Whether it may be read is found out while there is a way back.
  std::array<std::byte, 1> probe{};
  const auto read = frozen.read(frozen.pieces_.front().hva, probe);
  if (!read) {
    return fail(ErrorCode::kUnsupported, "this host does not let the copy be read: {}",
                read.error().message());
  }
  return frozen;
}

FrozenMemory::FrozenMemory(FrozenMemory&& other) noexcept
    : pieces_(std::move(other.pieces_)),
      process_(std::exchange(other.process_, -1)),
      life_(std::move(other.life_)) {}

FrozenMemory& FrozenMemory::operator=(FrozenMemory&& other) noexcept {
  if (this == &other) return *this;
  end();
  pieces_ = std::move(other.pieces_);
  process_ = std::exchange(other.process_, -1);
  life_ = std::move(other.life_);
  return *this;
}

FrozenMemory::~FrozenMemory() { end(); }

void FrozenMemory::end() noexcept {
  if (process_ < 0) return;
  (void)::kill(process_, SIGKILL);
  // __WALL: it is a child that signals nobody.
  while (::waitpid(process_, nullptr, __WALL) < 0 && errno == EINTR) continue;
  process_ = -1;
}

Result<void> FrozenMemory::read(const std::byte* from, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const iovec to{bytes.data(), bytes.size()};
    const iovec there{const_cast<std::byte*>(from), bytes.size()};
    const ssize_t n = ::process_vm_readv(process_, &to, 1, &there, 1, 0);
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "Read frozen guest memory");
    from += n;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace vmm

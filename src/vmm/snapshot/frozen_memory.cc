#include "vmm/snapshot/frozen_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/signals_blocked.h"
#include "base/size.h"
#include "vmm/snapshot/zero_page.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = 4096;

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

// A message, and room for one descriptor with it.
struct Message {
  Message(void* data, std::size_t size) : bytes{data, size} {
    head.msg_iov = &bytes;
    head.msg_iovlen = 1;
    head.msg_control = control;
    head.msg_controllen = sizeof control;
  }
  iovec bytes;
  msghdr head = {};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
};

bool write_all(int file, const std::byte* from, std::uint64_t size, std::uint64_t offset) {
  while (size != 0) {
    const ssize_t n = ::pwrite(file, from, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) return false;
    from += n;
    size -= static_cast<std::uint64_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  return true;
}

}  // namespace

struct FrozenMemory::Request {
  const std::byte* from = nullptr;
  std::uint64_t pages = 0;
  std::uint64_t offset = 0;
};

struct FrozenMemory::Reply {
  int error = 0;  // errno
  PageBits written = {};
};

// Runs of pages that are not all zeroes, each by one write.
int FrozenMemory::answer(const Request& request, int file, Reply& reply) {
  for (std::uint64_t page = 0; page < request.pages;) {
    std::uint64_t end = page;
    while (end < request.pages && !is_zero_page(request.from + end * kPage)) {
      reply.written[end / 64] |= std::uint64_t{1} << end % 64;
      ++end;
    }
    if (!write_all(file, request.from + page * kPage, (end - page) * kPage,
                   request.offset + page * kPage)) {
      return errno;
    }
    page = end + 1;
  }
  return 0;
}

// Other threads of this process may have held any lock when that one began: it calls nothing that
// takes one, and nothing but system calls and what only computes.
void FrozenMemory::serve(int socket, int other_end) {
  ::close(other_end);
  const auto fd = static_cast<unsigned>(socket);
  (void)::syscall(SYS_close_range, fd + 1, ~0U, 0);
  if (fd > 0) (void)::syscall(SYS_close_range, 0, fd - 1, 0);
  (void)::prctl(PR_SET_NAME, "vmm-frozen");
  int file = -1;
  while (true) {
    Request request;
    Message message(&request, sizeof request);
    const ssize_t n = ::recvmsg(socket, &message.head, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n != static_cast<ssize_t>(sizeof request)) ::syscall(SYS_exit_group, 0);
    if (const cmsghdr* const with = CMSG_FIRSTHDR(&message.head)) {
      if (file >= 0) ::close(file);
      std::memcpy(&file, CMSG_DATA(with), sizeof file);
    }
    Reply reply;
    reply.error = answer(request, file, reply);
    if (::send(socket, &reply, sizeof reply, MSG_NOSIGNAL) < 0) ::syscall(SYS_exit_group, 0);
  }
}

Result<FrozenMemory> FrozenMemory::create(const GuestMemory& memory) {
  std::vector<Piece> pieces = VMM_TRY(private_ram(memory));
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "Create a pair of sockets");
  }
  UniqueFd theirs(ends[0]), ours(ends[1]);
  pid_t process = -1;
  {
    const SignalsBlocked blocked(SignalsBlocked::Faults::kBlocked);
    // As fork(2), but nobody is signalled when it ends: a program that embeds this may wait for
    // children of its own.
    process = static_cast<pid_t>(::syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr));
    if (process == 0) serve(theirs.get(), ours.get());
  }
  if (process < 0) return fail_errno(errno, "Copy the address space");
  return FrozenMemory(std::move(pieces), process, std::move(ours));
}

FrozenMemory::FrozenMemory(FrozenMemory&& other) noexcept
    : pieces_(std::move(other.pieces_)),
      process_(std::exchange(other.process_, -1)),
      socket_(std::move(other.socket_)) {}

FrozenMemory& FrozenMemory::operator=(FrozenMemory&& other) noexcept {
  if (this == &other) return *this;
  end();
  pieces_ = std::move(other.pieces_);
  process_ = std::exchange(other.process_, -1);
  socket_ = std::move(other.socket_);
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

Result<FrozenMemory::PageBits> FrozenMemory::ask(const Request& request, int file) const {
  Request copy = request;
  Message message(&copy, sizeof copy);
  if (file >= 0) {
    cmsghdr* const with = CMSG_FIRSTHDR(&message.head);
    with->cmsg_level = SOL_SOCKET;
    with->cmsg_type = SCM_RIGHTS;
    with->cmsg_len = CMSG_LEN(sizeof file);
    std::memcpy(CMSG_DATA(with), &file, sizeof file);
  } else {
    message.head.msg_controllen = 0;
  }
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket_.get(), &message.head, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return fail_errno(errno, "Ask the process that holds the guest's memory");
  Reply reply;
  do {
    n = ::recv(socket_.get(), &reply, sizeof reply, 0);
  } while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(sizeof reply)) {
    return fail(ErrorCode::kIo, "The process that holds the guest's memory is gone");
  }
  if (reply.error != 0) {
    return fail_errno(reply.error, "Write {} of guest memory", format_size(request.pages * kPage));
  }
  return reply.written;
}

Result<void> FrozenMemory::set_file(int file) const {
  VMM_TRY(ask({}, file));
  return {};
}

Result<FrozenMemory::PageBits> FrozenMemory::write(const std::byte* from, std::uint32_t pages,
                                                   std::uint64_t offset) const {
  return ask({.from = from, .pages = pages, .offset = offset}, -1);
}

}  // namespace vmm

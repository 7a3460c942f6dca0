#include "vmm/net/tap_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace vmm {
namespace {

constexpr const char* kControl = "/dev/net/tun";

unsigned tun_offloads(const NetOffloads& offloads) {
  // The kernel takes none of the others without the checksum.
  if (!offloads.checksum) return 0;
  unsigned bits = TUN_F_CSUM;
  if (offloads.tso4) bits |= TUN_F_TSO4;
  if (offloads.tso6) bits |= TUN_F_TSO6;
  if (offloads.ecn && (offloads.tso4 || offloads.tso6)) bits |= TUN_F_TSO_ECN;
  if (offloads.ufo) bits |= TUN_F_UFO;
  return bits;
}

::ifreq request_for(const std::string& name) {
  ::ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  return request;
}

// Past the C library: its functions can be cancelled, which costs as much as a tenth of a frame in
// a program with threads.
ssize_t raw(long number, int fd, const void* what, std::size_t size) {
  return static_cast<ssize_t>(::syscall(number, fd, what, size));
}

// A small frame is put together here: the kernel takes longer for a list of pieces.
ssize_t write_frame(int fd, std::span<const ::iovec> pieces) {
  std::array<std::byte, 2048> whole;
  std::size_t size = 0;
  for (const ::iovec& piece : pieces) {
    if (piece.iov_len > whole.size() - size) {
      return raw(SYS_writev, fd, pieces.data(), pieces.size());
    }
    std::memcpy(whole.data() + size, piece.iov_base, piece.iov_len);
    size += piece.iov_len;
  }
  return raw(SYS_write, fd, whole.data(), size);
}

// The first two as one when they touch.
std::span<const ::iovec> joined(std::span<::iovec> pieces) {
  if (pieces.size() < 2) return pieces;
  ::iovec& second = pieces[1];
  const auto* const end = static_cast<const std::byte*>(pieces[0].iov_base) + pieces[0].iov_len;
  if (end != second.iov_base) return pieces;
  second = {pieces[0].iov_base, pieces[0].iov_len + second.iov_len};
  return pieces.subspan(1);
}

ssize_t read_frame(int fd, std::span<const ::iovec> pieces) {
  if (pieces.size() == 1) return raw(SYS_read, fd, pieces[0].iov_base, pieces[0].iov_len);
  return raw(SYS_readv, fd, pieces.data(), pieces.size());
}

// Nothing when the interface is in another network namespace than we are.
std::optional<std::uint16_t> mtu_of(const std::string& name) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ::ifreq request = request_for(name);
  if (!socket || ::ioctl(socket.get(), SIOCGIFMTU, &request) != 0) return std::nullopt;
  constexpr int kLeast = 68, kMost = 65535;  // VIRTIO 1.2, section 5.1.4.1
  if (request.ifr_mtu < kLeast || request.ifr_mtu > kMost) return std::nullopt;
  return static_cast<std::uint16_t>(request.ifr_mtu);
}

Error attach_error(int errnum, const std::string& name) {
  const auto explain = [&](ErrorCode code, const char* why) {
    return Error::from_errno(errnum, code, fmt::format("Use the tap device {}: {}", name, why));
  };
  switch (errnum) {
    case EPERM:
      return explain(ErrorCode::kIo,
                     "it belongs to somebody else (make it with 'ip tuntap add ... user NAME')");
    case EBUSY:
      return explain(ErrorCode::kResource, "another program has it");
    case EINVAL:
      return explain(ErrorCode::kBadConfig, "it is no tap device");
    default:
      return Error::from_errno(errnum, fmt::format("Use the tap device {}", name));
  }
}

}  // namespace

namespace {

Result<void> check_tap(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return fail(ErrorCode::kBadConfig, "'{}' cannot be a network interface: 1 to {} characters",
                name, IFNAMSIZ - 1);
  }
  // The kernel would make one, which leads nowhere until somebody configures it.
  if (::if_nametoindex(name.c_str()) == 0) {
    return fail(ErrorCode::kBadConfig,
                "There is no network interface {0}: make it with 'ip tuntap add {0} mode tap' and "
                "'ip link set {0} up'",
                name);
  }
  return {};
}

// A queue of the device. The errno value is for the caller to explain.
struct Attached {
  UniqueFd fd;
  int error = 0;
};
Result<Attached> attach(const std::string& name, int queue_flag) {
  UniqueFd fd(::open(kControl, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "Open {}", kControl);
  ::ifreq request = request_for(name);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | queue_flag);
  const int error = ::ioctl(fd.get(), TUNSETIFF, &request) == 0 ? 0 : errno;
  return Attached{std::move(fd), error};
}

}  // namespace

Result<std::unique_ptr<TapBackend>> TapBackend::open(const std::string& name) {
  VMM_TRY(check_tap(name));
  // Whether the device has several queues must be said as it is.
  Attached attached = VMM_TRY(attach(name, 0));
  if (attached.error == EINVAL) attached = VMM_TRY(attach(name, IFF_MULTI_QUEUE));
  if (attached.error != 0) return tl::unexpected<Error>(attach_error(attached.error, name));
  return create(std::move(attached.fd));
}

Result<std::vector<std::unique_ptr<TapBackend>>> TapBackend::open_queues(const std::string& name,
                                                                         std::size_t count) {
  VMM_TRY(check_tap(name));
  std::vector<std::unique_ptr<TapBackend>> queues;
  while (queues.size() < count) {
    Attached attached = VMM_TRY(attach(name, IFF_MULTI_QUEUE));
    if (attached.error == EINVAL) {
      return fail(ErrorCode::kBadConfig,
                  "The tap device {0} has one queue only: make it with 'ip tuntap add {0} mode tap "
                  "multi_queue', or leave queues= away",
                  name);
    }
    if (attached.error != 0) return tl::unexpected<Error>(attach_error(attached.error, name));
    queues.push_back(VMM_TRY(create(std::move(attached.fd))));
  }
  return queues;
}

Result<std::unique_ptr<TapBackend>> TapBackend::adopt(int fd) {
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) {
    return tl::unexpected<Error>(Error::from_errno(
        errno, ErrorCode::kBadConfig, fmt::format("Use descriptor {} as a network", fd)));
  }
  const int flags = ::fcntl(own.get(), F_GETFL);
  if (flags < 0 || ::fcntl(own.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "Use descriptor {} as a network", fd);
  }
  return with_context(create(std::move(own)), fmt::format("Use descriptor {} as a network", fd));
}

Result<std::unique_ptr<TapBackend>> TapBackend::create(UniqueFd fd) {
  ::ifreq request{};
  if (::ioctl(fd.get(), TUNGETIFF, &request) != 0 ||
      (request.ifr_flags & (IFF_TAP | IFF_NO_PI)) != (IFF_TAP | IFF_NO_PI)) {
    return fail(ErrorCode::kBadConfig,
                "It is no tap device (or one with IFF_PI, which is not supported)");
  }
  FdGate gate = VMM_TRY(FdGate::create(fd.get()));
  std::unique_ptr<TapBackend> tap(new TapBackend(std::move(fd), std::move(gate)));
  tap->name_.assign(request.ifr_name, ::strnlen(request.ifr_name, sizeof request.ifr_name));
  tap->mtu_ = mtu_of(tap->name_);
  if ((request.ifr_flags & IFF_VNET_HDR) != 0) VMM_TRY(tap->set_up_header());
  return tap;
}

Result<void> TapBackend::set_up_header() {
  int size = sizeof(NetHeader);
  int little = 1;
  if (::ioctl(fd_.get(), TUNSETVNETHDRSZ, &size) != 0 ||
      ::ioctl(fd_.get(), TUNSETVNETLE, &little) != 0) {
    return fail_errno(errno, "Choose the form of the tap device's headers");
  }
  has_header_ = true;
  for (const NetOffloads& wanted :
       {NetOffloads{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true},
        NetOffloads{.checksum = true, .tso4 = true, .tso6 = true}, NetOffloads{.checksum = true}}) {
    if (::ioctl(fd_.get(), TUNSETOFFLOAD, tun_offloads(wanted)) == 0) {
      offloads_ = wanted;
      break;
    }
  }
  allow_to_guest({});  // also what the last user of a persistent device left behind
  return {};
}

void TapBackend::set_enabled(bool enabled) {
  if (enabled == enabled_) return;
  gate_.set_open(false);  // a detached queue is ready for ever, with an error
  ::ifreq request{};
  request.ifr_flags = static_cast<short>(enabled ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  // What the kernel refuses stays as it is: the frames of a queue that nobody looks at are lost.
  if (::ioctl(fd_.get(), TUNSETQUEUE, &request) == 0) enabled_ = enabled;
}

void TapBackend::allow_to_guest(const NetOffloads& allowed) {
  if (has_header_) (void)::ioctl(fd_.get(), TUNSETOFFLOAD, tun_offloads(allowed));
}

bool TapBackend::send(const NetHeader& header, std::span<const ::iovec> frame) {
  std::array<::iovec, kMostPieces + 1> pieces;
  const std::size_t before = has_header_ ? 1 : 0;
  if (!up_ || !enabled_ || frame.size() > kMostPieces) return false;
  NetHeader copy = header;
  copy.buffers = 0;
  pieces[0] = {&copy, sizeof copy};
  std::copy(frame.begin(), frame.end(), pieces.begin() + static_cast<std::ptrdiff_t>(before));
  const auto all = std::span(pieces).first(frame.size() + before);
  ssize_t written = 0;
  do {
    written = write_frame(fd_.get(), all);
  } while (written < 0 && errno == EINTR);
  return written >= 0;
}

std::optional<std::size_t> TapBackend::receive(NetHeader& header, std::span<const ::iovec> into) {
  if (!up_ || !enabled_) return std::nullopt;
  header = {};
  std::array<::iovec, kMostPieces + 1> pieces;
  const std::size_t before = has_header_ ? 1 : 0;
  pieces[0] = {&header, sizeof header};
  std::copy(into.begin(), into.end(), pieces.begin() + static_cast<std::ptrdiff_t>(before));
  const auto all = joined(std::span(pieces).first(into.size() + before));
  for (;;) {
    const ssize_t size = read_frame(fd_.get(), all);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != EAGAIN) {
      up_ = false;  // the interface has been deleted; the descriptor says so for ever
      gate_.set_open(false);
    }
    const ssize_t least = has_header_ ? static_cast<ssize_t>(sizeof header) : 0;
    if (size < least) return std::nullopt;
    return static_cast<std::size_t>(size - least);
  }
}

void TapBackend::want_frames(bool wanted) { gate_.set_open(wanted && up_ && enabled_); }

}  // namespace vmm

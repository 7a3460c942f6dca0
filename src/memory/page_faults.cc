#include "memory/page_faults.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/checked.h"
#include "base/size.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = 4096;

#ifndef USERFAULTFD_IOC_NEW
constexpr unsigned long kNew = _IO(0xaa, 0x00);  // Linux 6.1, <linux/userfaultfd.h>
#else
constexpr unsigned long kNew = USERFAULTFD_IOC_NEW;
#endif

// The device's permissions say who may; without it the system call, whose are capabilities and
// vm.unprivileged_userfaultfd. Not with UFFD_USER_MODE_ONLY: KVM's faults are the kernel's.
UniqueFd open_any() {
  const UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    UniqueFd fd(::ioctl(device.get(), kNew, O_CLOEXEC | O_NONBLOCK));
    if (fd) return fd;
  }
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
}

std::uint64_t number_of(const std::byte* at) { return reinterpret_cast<std::uintptr_t>(at); }

}  // namespace

Result<PageFaults> PageFaults::open() {
  UniqueFd fd = open_any();
  if (!fd) {
    return tl::unexpected<Error>(Error::from_errno(
        errno, ErrorCode::kUnsupported,
        "This host does not let this process bring a guest's pages (userfaultfd): its "
        "administrator can give access to /dev/userfaultfd, or set "
        "vm.unprivileged_userfaultfd=1 (sysctl); mapped memory needs neither"));
  }
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) {
    return tl::unexpected<Error>(
        Error::from_errno(errno, ErrorCode::kUnsupported, "Agree with the kernel on userfaultfd"));
  }
  return PageFaults(std::move(fd));
}

Result<void> PageFaults::watch(std::span<std::byte> memory) const {
  uffdio_register range{};
  range.range = {.start = number_of(memory.data()), .len = memory.size()};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &range) != 0) {
    return fail_errno(errno, "Watch {} of guest memory for faults", format_size(memory.size()));
  }
  return {};
}

Result<std::optional<std::byte*>> PageFaults::next() const {
  for (;;) {
    uffd_msg message;
    const ssize_t n = ::read(fd_.get(), &message, sizeof message);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return std::optional<std::byte*>();
    if (n != static_cast<ssize_t>(sizeof message)) {
      return fail_errno(n < 0 ? errno : EIO, "Read who waits for guest memory");
    }
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    const auto address = static_cast<std::uintptr_t>(message.arg.pagefault.address);
    return std::optional(reinterpret_cast<std::byte*>(align_down(address, kPage)));
  }
}

void PageFaults::wake(std::byte* page) const noexcept {
  uffdio_range range{.start = number_of(page), .len = kPage};
  (void)::ioctl(fd_.get(), UFFDIO_WAKE, &range);
}

template <typename Fn>
Result<void> PageFaults::bring_all(std::byte* to, std::uint64_t size, Fn&& fn) const {
  for (std::uint64_t done = 0; done < size;) {
    std::int64_t brought = 0;
    if (fn(done, brought) == 0) return {};
    if (brought > 0) {
      done += static_cast<std::uint64_t>(brought);
    } else if (errno == EEXIST) {  // who faulted on it may still wait
      wake(to + done);
      done += kPage;
    } else if (errno == EAGAIN) {  // the address space is being changed
      ::sched_yield();
    } else if (errno != EINTR) {
      return fail_errno(errno, "Bring {} of guest memory", format_size(size - done));
    }
  }
  return {};
}

Result<void> PageFaults::bring(std::byte* to, std::span<const std::byte> pages) const {
  return bring_all(to, pages.size(), [&](std::uint64_t done, std::int64_t& brought) {
    uffdio_copy copy{};
    copy.dst = number_of(to) + done;
    copy.src = number_of(pages.data()) + done;
    copy.len = pages.size() - done;
    const int failed = ::ioctl(fd_.get(), UFFDIO_COPY, &copy);
    brought = copy.copy;
    return failed;
  });
}

Result<void> PageFaults::bring_zeroes(std::byte* to, std::uint64_t size) const {
  return bring_all(to, size, [&](std::uint64_t done, std::int64_t& brought) {
    uffdio_zeropage zero{};
    zero.range = {.start = number_of(to) + done, .len = size - done};
    const int failed = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero);
    brought = zero.zeropage;
    return failed;
  });
}

}  // namespace vmm

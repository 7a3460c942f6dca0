#include "tests/support/fakes/stepping_kvm.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <ctime>
#include <map>
#include <mutex>

#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::test {
namespace {

constexpr std::size_t kRunSize = 4096;  // of what is shared with a vCPU the first page is enough
constexpr std::uint8_t kNop = 0x90, kInt3 = 0xcc, kJump = 0xeb;
constexpr std::uint64_t kDr6SingleStep = 1U << 14, kDr6Reset = 0xffff'0ff0;
constexpr std::uint32_t kDebugException = 1, kBreakpointException = 3;

std::atomic<const std::byte*> played{nullptr};
std::mutex mutex;  // guards the next
std::map<int, kvm_guest_debug> wishes;

int host(int fd, unsigned long request, void* argument) {
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}

// One vCPU for as long as it runs.
class Run {
 public:
  Run(int fd, const std::byte* memory) : fd_(fd), memory_(memory) {
    shared_ =
        static_cast<kvm_run*>(::mmap(nullptr, kRunSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    host(fd, KVM_GET_REGS, &registers_);
    const std::lock_guard lock(mutex);
    wish_ = wishes[fd];
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    host(fd_, KVM_SET_REGS, &registers_);
    if (shared_->kvm_valid_regs & KVM_SYNC_X86_REGS) shared_->s.regs.regs = registers_;
    if (shared_->kvm_valid_regs & KVM_SYNC_X86_SREGS) {
      host(fd_, KVM_GET_SREGS, &shared_->s.regs.sregs);
    }
    ::munmap(shared_, kRunSize);
  }

  // As KVM_RUN.
  int until_exit() {
    while (!std::atomic_ref(shared_->immediate_exit).load()) {
      if (const auto slot = breakpoint_here(); slot >= 0) {
        return stop(kDebugException, kDr6Reset | 1U << slot);
      }
      switch (std::to_integer<std::uint8_t>(memory_[registers_.rip])) {
        case kNop:
          ++registers_.rip;
          break;
        case kJump:  // to itself
          wait();
          break;
        case kInt3:
          if (wants(KVM_GUESTDBG_USE_SW_BP)) return stop(kBreakpointException, kDr6Reset);
          [[fallthrough]];
        default:
          errno = EINVAL;
          return -1;
      }
      if (wants(KVM_GUESTDBG_SINGLESTEP)) return stop(kDebugException, kDr6Reset | kDr6SingleStep);
    }
    errno = EINTR;
    return -1;
  }

 private:
  bool wants(std::uint32_t what) const {
    return (wish_.control & KVM_GUESTDBG_ENABLE) != 0 && (wish_.control & what) != 0;
  }
  int breakpoint_here() const {
    if (!wants(KVM_GUESTDBG_USE_HW_BP)) return -1;
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t enabled = wish_.arch.debugreg[7] >> (2 * i) & 3;
      if (enabled != 0 && wish_.arch.debugreg[i] == registers_.rip) return i;
    }
    return -1;
  }
  int stop(std::uint32_t exception, std::uint64_t dr6) {
    shared_->exit_reason = KVM_EXIT_DEBUG;
    shared_->debug.arch = {.exception = exception,
                           .pad = 0,
                           .pc = registers_.rip,
                           .dr6 = dr6,
                           .dr7 = wish_.arch.debugreg[7]};
    return 0;
  }
  static void wait() {
    const timespec moment{.tv_sec = 0, .tv_nsec = 100'000};
    ::nanosleep(&moment, nullptr);
  }

  const int fd_;
  const std::byte* const memory_;
  kvm_run* shared_ = nullptr;
  kvm_regs registers_{};
  kvm_guest_debug wish_{};
};

}  // namespace

SteppingKvm::SteppingKvm(const std::byte* memory) { played = memory; }

SteppingKvm::~SteppingKvm() {
  played = nullptr;
  const std::lock_guard lock(mutex);
  wishes.clear();
}

}  // namespace vmm::test

// In the C library's place.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  std::va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  using namespace vmm::test;  // NOLINT(google-build-using-namespace): one function
  const std::byte* const memory = played.load();
  if (memory != nullptr && request == KVM_RUN) return Run(fd, memory).until_exit();
  if (memory != nullptr && request == KVM_SET_GUEST_DEBUG) {
    const std::lock_guard lock(mutex);
    wishes[fd] = *static_cast<const kvm_guest_debug*>(argument);
    return 0;
  }
  return host(fd, request, argument);
}

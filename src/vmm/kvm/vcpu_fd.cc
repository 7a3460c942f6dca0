#include "vmm/kvm/vcpu_fd.h"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "vmm/kvm/decode_exit.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {

Result<VcpuFd> VcpuFd::create(UniqueFd fd, std::uint32_t id, std::size_t run_size,
                              std::size_t xsave_size) {
  void* const page = ::mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) return fail_errno(errno, "Map the shared page of vCPU {}", id);
  return VcpuFd(std::move(fd), id, static_cast<kvm_run*>(page), run_size, xsave_size);
}

VcpuFd::VcpuFd(VcpuFd&& other) noexcept
    : fd_(std::move(other.fd_)),
      id_(other.id_),
      run_(std::exchange(other.run_, nullptr)),
      run_size_(other.run_size_),
      xsave_size_(other.xsave_size_),
      kicked_(other.kicked_.load(std::memory_order_relaxed)),
      has_picture_(other.has_picture_) {}

VcpuFd::~VcpuFd() { close(); }

void VcpuFd::close() noexcept {
  if (run_ != nullptr) ::munmap(std::exchange(run_, nullptr), run_size_);
  fd_.reset();
}

Result<void> VcpuFd::get(unsigned long request, void* to, const char* name) const {
  if (::ioctl(fd_.get(), request, to) < 0) return fail_errno(errno, "{} on vCPU {}", name, id_);
  return {};
}

Result<void> VcpuFd::set(unsigned long request, const void* from, const char* name) const {
  forget_picture();
  if (::ioctl(fd_.get(), request, from) < 0) return fail_errno(errno, "{} on vCPU {}", name, id_);
  return {};
}

[[gnu::hot]] Result<VcpuExit> VcpuFd::run() {
  const int answer = ::ioctl(fd_.get(), KVM_RUN, 0);
  // What KVM refuses to run it may not have looked at.
  has_picture_ =
      (answer >= 0 || errno == EINTR) && (run_->kvm_valid_regs & KVM_SYNC_X86_SREGS) != 0;
  if (answer < 0) {
    if (errno == EINTR || errno == EAGAIN) return VcpuExit(InterruptedExit{});
    if (errno == EFAULT) return VcpuExit(MemoryFaultExit{});
    return fail_errno(errno, "KVM_RUN on vCPU {}", id_);
  }
  return decode_exit(run_);
}

void VcpuFd::set_immediate_exit(bool on) noexcept {
  // The kernel reads this byte from another CPU's point of view: a plain store that the compiler
  // may not delay.
  std::atomic_ref<std::uint8_t>(run_->immediate_exit).store(on ? 1 : 0, std::memory_order_seq_cst);
}

Result<std::optional<VcpuExit>> VcpuFd::complete_pending() {
  set_immediate_exit(true);
  // Whoever looks at a CPU that stands asks for both kinds of registers: here they come along,
  // while a request of another thread has the processor fetch this CPU's state for each.
  const __u64 wanted = run_->kvm_valid_regs;
  if ((wanted & KVM_SYNC_X86_REGS) != 0) run_->kvm_valid_regs |= KVM_SYNC_X86_SREGS;
  const int answer = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int errnum = errno;
  has_picture_ = (wanted & KVM_SYNC_X86_REGS) != 0 && answer < 0 && errnum == EINTR;
  run_->kvm_valid_regs = wanted;
  set_immediate_exit(false);
  // A kick sets its mark first: whoever comes in between is seen here.
  if (kicked_.load(std::memory_order_seq_cst)) set_immediate_exit(true);
  if (answer >= 0) return std::optional(decode_exit(run_));
  if (errnum != EINTR && errnum != EAGAIN) {
    return fail_errno(errnum, "KVM_RUN with immediate_exit on vCPU {}", id_);
  }
  return std::optional<VcpuExit>();
}

void VcpuFd::answer_msr(std::uint64_t value, bool fault) noexcept {
  run_->msr.data = value;
  run_->msr.error = fault ? 1 : 0;
}

std::optional<std::uint64_t> VcpuFd::msr_answer() const noexcept {
  if (run_->msr.error != 0) return std::nullopt;
  return run_->msr.data;
}

Result<std::uint32_t> VcpuFd::tsc_khz() const {
  const int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ);
  if (khz <= 0) return fail_errno(khz < 0 ? errno : EIO, "KVM_GET_TSC_KHZ on vCPU {}", id_);
  return static_cast<std::uint32_t>(khz);
}

namespace {

kvm_device_attr tsc_offset_at(const std::uint64_t& offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<std::uintptr_t>(&offset);
  return attribute;
}

}  // namespace

Result<void> VcpuFd::set_tsc_offset(std::uint64_t offset) const {
  const kvm_device_attr attribute = tsc_offset_at(offset);
  return set(KVM_SET_DEVICE_ATTR, &attribute, "KVM_SET_DEVICE_ATTR (TSC offset)");
}

std::optional<std::uint64_t> VcpuFd::tsc_offset() const {
  std::uint64_t offset = 0;
  kvm_device_attr attribute = tsc_offset_at(offset);
  if (::ioctl(fd_.get(), KVM_GET_DEVICE_ATTR, &attribute) < 0) return std::nullopt;
  return offset;
}

void VcpuFd::tell_paused() const noexcept { (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0); }

Result<void> VcpuFd::set_signal_mask(const sigset_t& mask) const {
  // The kernel's signal set has 64 bits, the C library's is larger; the structure is put together
  // by hand because its flexible array lies at another offset in C++.
  constexpr std::size_t kKernelSetSize = 8;
  std::array<std::byte, kSignalMaskHead + kKernelSetSize> raw{};
  const std::uint32_t size = kKernelSetSize;
  std::memcpy(raw.data(), &size, sizeof size);
  std::memcpy(raw.data() + kSignalMaskHead, &mask, kKernelSetSize);
  return set(kSetSignalMask, raw.data(), "KVM_SET_SIGNAL_MASK");
}

}  // namespace vmm::kvm

#include "vmm/kvm/vcpu_fd.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "vmm/kvm/decode_exit.h"
#include "vmm/kvm/flexible.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/ioctl_numbers.h"
#include "vmm/kvm/system.h"

namespace vmm::kvm {
namespace {

// struct kvm_regs orders the general registers by name, instruction encodings by number.
struct GprField {
  x86::Gpr index;
  __u64 kvm_regs::*field;
};
constexpr std::array<GprField, 16> kGprFields{{
    {x86::kRax, &kvm_regs::rax},
    {x86::kRcx, &kvm_regs::rcx},
    {x86::kRdx, &kvm_regs::rdx},
    {x86::kRbx, &kvm_regs::rbx},
    {x86::kRsp, &kvm_regs::rsp},
    {x86::kRbp, &kvm_regs::rbp},
    {x86::kRsi, &kvm_regs::rsi},
    {x86::kRdi, &kvm_regs::rdi},
    {x86::kR8, &kvm_regs::r8},
    {x86::kR9, &kvm_regs::r9},
    {x86::kR10, &kvm_regs::r10},
    {x86::kR11, &kvm_regs::r11},
    {x86::kR12, &kvm_regs::r12},
    {x86::kR13, &kvm_regs::r13},
    {x86::kR14, &kvm_regs::r14},
    {x86::kR15, &kvm_regs::r15},
}};

x86::Segment from_kvm(const kvm_segment& s) {
  return {s.base,   s.limit,  s.selector, s.type,   s.dpl,      s.present != 0,
          s.s != 0, s.l != 0, s.db != 0,  s.g != 0, s.avl != 0, s.unusable != 0};
}

kvm_segment to_kvm(const x86::Segment& s) {
  kvm_segment k{};
  k.base = s.base;
  k.limit = s.limit;
  k.selector = s.selector;
  k.type = s.type;
  k.dpl = s.dpl;
  k.present = s.present;
  k.s = s.code_or_data;
  k.l = s.long_mode;
  k.db = s.default_big;
  k.g = s.granularity;
  k.avl = s.available;
  k.unusable = s.unusable;
  return k;
}

struct SegmentField {
  x86::Segment x86::SystemRegisters::*ours;
  kvm_segment kvm_sregs::*theirs;
};
constexpr std::array<SegmentField, 8> kSegmentFields{{
    {&x86::SystemRegisters::cs, &kvm_sregs::cs},
    {&x86::SystemRegisters::ds, &kvm_sregs::ds},
    {&x86::SystemRegisters::es, &kvm_sregs::es},
    {&x86::SystemRegisters::fs, &kvm_sregs::fs},
    {&x86::SystemRegisters::gs, &kvm_sregs::gs},
    {&x86::SystemRegisters::ss, &kvm_sregs::ss},
    {&x86::SystemRegisters::tr, &kvm_sregs::tr},
    {&x86::SystemRegisters::ldt, &kvm_sregs::ldt},
}};

struct MpStateName {
  MpState ours;
  std::uint32_t theirs;
};
x86::Registers from_kvm(const kvm_regs& k) {
  x86::Registers r;
  for (const GprField& f : kGprFields) r.gpr[f.index] = k.*f.field;
  r.rip = k.rip;
  r.rflags = k.rflags;
  return r;
}

x86::SystemRegisters from_kvm(const kvm_sregs& k) {
  x86::SystemRegisters s;
  for (const SegmentField& f : kSegmentFields) s.*f.ours = from_kvm(k.*f.theirs);
  s.gdt = {k.gdt.base, k.gdt.limit};
  s.idt = {k.idt.base, k.idt.limit};
  s.cr0 = k.cr0;
  s.cr2 = k.cr2;
  s.cr3 = k.cr3;
  s.cr4 = k.cr4;
  s.cr8 = k.cr8;
  s.efer = k.efer;
  s.apic_base = k.apic_base;
  return s;
}

constexpr std::array<MpStateName, 5> kMpStates{{
    {MpState::kRunnable, KVM_MP_STATE_RUNNABLE},
    {MpState::kUninitialized, KVM_MP_STATE_UNINITIALIZED},
    {MpState::kInitReceived, KVM_MP_STATE_INIT_RECEIVED},
    {MpState::kHalted, KVM_MP_STATE_HALTED},
    {MpState::kSipiReceived, KVM_MP_STATE_SIPI_RECEIVED},
}};

}  // namespace

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

void VcpuFd::share_registers() noexcept { run_->kvm_valid_regs = KVM_SYNC_X86_REGS; }

bool VcpuFd::shares_registers() const noexcept {
  return (run_->kvm_valid_regs & KVM_SYNC_X86_REGS) != 0;
}

void VcpuFd::share_system_registers(bool on) const noexcept {
  if (on) {
    run_->kvm_valid_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
  } else {
    run_->kvm_valid_regs &= ~static_cast<__u64>(KVM_SYNC_X86_SREGS);
  }
}

bool VcpuFd::shares_system_registers() const noexcept {
  return (run_->kvm_valid_regs & KVM_SYNC_X86_SREGS) != 0;
}

x86::Registers VcpuFd::shared_registers() const noexcept { return from_kvm(run_->s.regs.regs); }

x86::SystemRegisters VcpuFd::shared_system_registers() const noexcept {
  return from_kvm(run_->s.regs.sregs);
}

[[gnu::hot]] std::uint64_t VcpuFd::exit_rip() const noexcept { return run_->s.regs.regs.rip; }

void VcpuFd::set_exit_rip(std::uint64_t rip) noexcept {
  forget_picture();
  run_->s.regs.regs.rip = rip;
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

Result<x86::Registers> VcpuFd::registers() const {
  if (has_picture_) return shared_registers();
  kvm_regs k{};
  VMM_TRY(get(KVM_GET_REGS, &k, "KVM_GET_REGS"));
  return from_kvm(k);
}

void VcpuFd::forget_readiness() const noexcept { run_->ready_for_interrupt_injection = 0; }

Result<void> VcpuFd::set_registers(const x86::Registers& r) const {
  forget_readiness();
  kvm_regs k{};
  for (const GprField& f : kGprFields) k.*f.field = r.gpr[f.index];
  k.rip = r.rip;
  k.rflags = r.rflags;
  return set(KVM_SET_REGS, &k, "KVM_SET_REGS");
}

Result<x86::SystemRegisters> VcpuFd::system_registers() const {
  if (has_picture_) return shared_system_registers();
  kvm_sregs k{};
  VMM_TRY(get(KVM_GET_SREGS, &k, "KVM_GET_SREGS"));
  return from_kvm(k);
}

namespace {

void put_into(kvm_sregs& k, const x86::SystemRegisters& s) {
  for (const SegmentField& f : kSegmentFields) k.*f.theirs = to_kvm(s.*f.ours);
  k.gdt.base = s.gdt.base;
  k.gdt.limit = s.gdt.limit;
  k.idt.base = s.idt.base;
  k.idt.limit = s.idt.limit;
  k.cr0 = s.cr0;
  k.cr2 = s.cr2;
  k.cr3 = s.cr3;
  k.cr4 = s.cr4;
  k.cr8 = s.cr8;
  k.efer = s.efer;
  k.apic_base = s.apic_base;
}

}  // namespace

Result<void> VcpuFd::set_system_registers(const x86::SystemRegisters& s) const {
  forget_readiness();
  // Read first: the interrupt bitmap is not part of SystemRegisters and must survive.
  kvm_sregs k{};
  VMM_TRY(get(KVM_GET_SREGS, &k, "KVM_GET_SREGS"));
  put_into(k, s);
  return set(KVM_SET_SREGS, &k, "KVM_SET_SREGS");
}

Result<void> VcpuFd::replace_system_registers(const x86::SystemRegisters& s) const {
  forget_readiness();
  kvm_sregs k{};
  put_into(k, s);
  return set(KVM_SET_SREGS, &k, "KVM_SET_SREGS");
}

Result<void> VcpuFd::set_cpuid(std::span<const x86::CpuidEntry> entries) const {
  CpuidTable table(entries.size());
  table.head().nent = static_cast<std::uint32_t>(entries.size());
  const auto to = table.entries(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const x86::CpuidEntry& from = entries[i];
    to[i].function = from.function;
    to[i].index = from.index;
    to[i].flags = from.index_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    to[i].eax = from.eax;
    to[i].ebx = from.ebx;
    to[i].ecx = from.ecx;
    to[i].edx = from.edx;
  }
  return set(kSetCpuid2, table.get(), "KVM_SET_CPUID2");
}

Result<std::uint64_t> VcpuFd::msr(std::uint32_t index) const {
  MsrTable table(1);
  table.head().nmsrs = 1;
  table.entries(1)[0].index = index;
  const int n = ::ioctl(fd_.get(), kGetMsrs, table.get());
  if (n < 0) return fail_errno(errno, "KVM_GET_MSRS on vCPU {}: MSR {:#x}", id_, index);
  if (n != 1) return fail(ErrorCode::kUnsupported, "KVM does not know MSR {:#x}", index);
  return table.entries(1)[0].data;
}

Result<std::size_t> VcpuFd::read_msrs(std::span<Msr> msrs) const {
  MsrTable table(msrs.size());
  table.head().nmsrs = static_cast<std::uint32_t>(msrs.size());
  const auto entries = table.entries(msrs.size());
  for (std::size_t i = 0; i < msrs.size(); ++i) entries[i].index = msrs[i].index;
  const int n = ::ioctl(fd_.get(), kGetMsrs, table.get());
  if (n < 0) return fail_errno(errno, "KVM_GET_MSRS on vCPU {}", id_);
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) msrs[i].value = entries[i].data;
  return static_cast<std::size_t>(n);
}

Result<void> VcpuFd::set_msrs(std::span<const Msr> msrs) const {
  forget_picture();
  MsrTable table(msrs.size());
  table.head().nmsrs = static_cast<std::uint32_t>(msrs.size());
  const auto to = table.entries(msrs.size());
  for (std::size_t i = 0; i < msrs.size(); ++i) {
    to[i].index = msrs[i].index;
    to[i].data = msrs[i].value;
  }
  const int n = ::ioctl(fd_.get(), kSetMsrs, table.get());
  if (n < 0) return fail_errno(errno, "KVM_SET_MSRS on vCPU {}", id_);
  // KVM stops at the first MSR that it refuses and says how many it took.
  if (static_cast<std::size_t>(n) != msrs.size()) {
    return fail(ErrorCode::kUnsupported,
                "KVM_SET_MSRS on vCPU {}: MSR {:#x} was refused the value {:#x}", id_,
                msrs[static_cast<std::size_t>(n)].index, msrs[static_cast<std::size_t>(n)].value);
  }
  return {};
}

Result<x86::XsaveArea> VcpuFd::xsave() const {
  x86::XsaveArea area(xsave_size_);
  if (xsave_size_ > sizeof(kvm_xsave::region)) {
    VMM_TRY(get(kGetXsave2, area.data(), "KVM_GET_XSAVE2"));
  } else {
    VMM_TRY(get(kGetXsave, area.data(), "KVM_GET_XSAVE"));
  }
  return area;
}

Result<void> VcpuFd::set_xsave(const x86::XsaveArea& area) const {
  if (area.size() != xsave_size_) {
    return fail(ErrorCode::kBadState, "The XSAVE area has {} bytes, this host's has {}",
                area.size(), xsave_size_);
  }
  return set(kSetXsave, area.data(), "KVM_SET_XSAVE");
}

Result<std::uint64_t> VcpuFd::xcr0() const {
  kvm_xcrs k{};
  VMM_TRY(get(KVM_GET_XCRS, &k, "KVM_GET_XCRS"));
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(k.nr_xcrs, KVM_MAX_XCRS); ++i) {
    if (k.xcrs[i].xcr == 0) return k.xcrs[i].value;
  }
  return fail(ErrorCode::kUnsupported, "KVM_GET_XCRS on vCPU {} has no XCR0", id_);
}

Result<void> VcpuFd::set_xcr0(std::uint64_t value) const {
  kvm_xcrs k{};
  k.nr_xcrs = 1;
  k.xcrs[0].xcr = 0;
  k.xcrs[0].value = value;
  return set(KVM_SET_XCRS, &k, "KVM_SET_XCRS");
}

Result<MpState> VcpuFd::mp_state() const {
  forget_picture();  // an INIT that waits is taken when it is asked for
  kvm_mp_state k{};
  VMM_TRY(get(KVM_GET_MP_STATE, &k, "KVM_GET_MP_STATE"));
  for (const MpStateName& name : kMpStates) {
    if (name.theirs == k.mp_state) return name.ours;
  }
  return MpState::kOther;
}

Result<void> VcpuFd::set_mp_state(MpState state) const {
  for (const MpStateName& name : kMpStates) {
    if (name.ours != state) continue;
    kvm_mp_state k{};
    k.mp_state = name.theirs;
    return set(KVM_SET_MP_STATE, &k, "KVM_SET_MP_STATE");
  }
  return fail(ErrorCode::kBadState, "vCPU {} cannot be put into an unnamed MP state", id_);
}

Result<void> VcpuFd::inject(const PendingException& exception) const {
  forget_readiness();
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  events.exception.injected = 1;
  events.exception.pending = 0;
  events.exception.nr = static_cast<std::uint8_t>(exception.vector);
  events.exception.has_error_code = exception.error_code ? 1 : 0;
  events.exception.error_code = exception.error_code.value_or(0);
  // Only what is set above is meant to change.
  events.flags = 0;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Result<bool> VcpuFd::interrupt(std::uint8_t vector) {
  kvm_interrupt interrupt{};
  interrupt.irq = vector;
  if (::ioctl(fd_.get(), KVM_INTERRUPT, &interrupt) < 0) {
    if (errno == EEXIST) return false;
    return fail_errno(errno, "KVM_INTERRUPT on vCPU {}: vector {:#x}", id_, vector);
  }
  forget_readiness();  // it was of the time before this one
  return true;
}

bool VcpuFd::ready_for_interrupt() const noexcept {
  return run_->ready_for_interrupt_injection != 0;
}

void VcpuFd::set_ready_for_interrupt(bool ready) noexcept {
  run_->ready_for_interrupt_injection = ready ? 1 : 0;
}

Result<PendingEvents> VcpuFd::pending_events() const {
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  PendingEvents pending;
  if (events.exception.injected != 0 || events.exception.pending != 0) {
    pending.exception = PendingException{.vector = static_cast<x86::Vector>(events.exception.nr)};
    if (events.exception.has_error_code != 0) {
      pending.exception->error_code = events.exception.error_code;
    }
  }
  if (events.interrupt.injected != 0) {
    (events.interrupt.soft != 0 ? pending.software_interrupt : pending.interrupt) =
        events.interrupt.nr;
  }
  pending.nmi = events.nmi.injected != 0 || events.nmi.pending != 0;
  pending.shadow = events.interrupt.shadow != 0;
  pending.nmi_blocked = events.nmi.masked != 0;
  return pending;
}

Result<void> VcpuFd::take_events(bool nmi, bool shadow, bool nmi_blocked) const {
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  events.exception.injected = events.exception.pending = 0;
  events.interrupt.injected = events.interrupt.soft = 0;
  events.interrupt.shadow = shadow ? KVM_X86_SHADOW_INT_STI : 0;
  // One NMI may wait behind the one that is being handled (SDM volume 3, 6.7.1).
  if (nmi && events.nmi.injected != 0) {
    events.nmi.injected = 0;
  } else if (nmi && events.nmi.pending != 0) {
    --events.nmi.pending;
  }
  events.nmi.masked = nmi_blocked ? 1 : 0;
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

bool VcpuFd::interrupt_window_requested() const noexcept {
  return run_->request_interrupt_window != 0;
}

void VcpuFd::request_interrupt_window(bool on) noexcept {
  run_->request_interrupt_window = on ? 1 : 0;
}

Result<void> VcpuFd::nmi() const {
  if (::ioctl(fd_.get(), KVM_NMI) < 0) return fail_errno(errno, "KVM_NMI on vCPU {}", id_);
  return {};
}

std::uint8_t VcpuFd::cr8() const noexcept { return static_cast<std::uint8_t>(run_->cr8 & 0xf); }

void VcpuFd::set_cr8(std::uint8_t value) noexcept { run_->cr8 = value; }

std::uint64_t VcpuFd::apic_base() const noexcept { return run_->apic_base; }

Result<void> VcpuFd::clear_events() const {
  forget_readiness();
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
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

Result<void> VcpuFd::inject_software_interrupt(std::uint8_t vector) const {
  forget_readiness();
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  events.interrupt.injected = 1;
  events.interrupt.nr = vector;
  events.interrupt.soft = 1;
  events.flags = 0;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Result<void> VcpuFd::end_interrupt_shadow() const {
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  if (events.interrupt.shadow == 0) return {};
  events.interrupt.shadow = 0;
  events.flags = KVM_VCPUEVENT_VALID_SHADOW;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Result<void> VcpuFd::end_nmi_blocking() const {
  kvm_vcpu_events events{};
  VMM_TRY(get(KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  if (events.nmi.masked == 0) return {};
  events.nmi.masked = 0;
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Result<x86::DebugRegisters> VcpuFd::debug_registers() const {
  kvm_debugregs k{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &k, "KVM_GET_DEBUGREGS"));
  x86::DebugRegisters registers;
  std::copy_n(std::begin(k.db), registers.address.size(), registers.address.begin());
  registers.dr6 = k.dr6;
  registers.dr7 = k.dr7;
  return registers;
}

Result<void> VcpuFd::set_debug_registers(const x86::DebugRegisters& registers) const {
  kvm_debugregs k{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &k, "KVM_GET_DEBUGREGS"));
  std::copy_n(registers.address.begin(), registers.address.size(), std::begin(k.db));
  k.dr6 = registers.dr6;
  k.dr7 = registers.dr7;
  return set(KVM_SET_DEBUGREGS, &k, "KVM_SET_DEBUGREGS");
}

Result<std::uint64_t> VcpuFd::dr7() const {
  kvm_debugregs debug{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &debug, "KVM_GET_DEBUGREGS"));
  return debug.dr7;
}

Result<void> VcpuFd::raise_dr6(std::uint64_t bits) const {
  kvm_debugregs debug{};
  VMM_TRY(get(KVM_GET_DEBUGREGS, &debug, "KVM_GET_DEBUGREGS"));
  debug.dr6 |= bits;
  return set(KVM_SET_DEBUGREGS, &debug, "KVM_SET_DEBUGREGS");
}

Result<void> VcpuFd::flush_tlb() const {
  // KVM has no request for it; a change of CR4.PGE flushes everything, as it does on a processor.
  constexpr std::uint64_t kCr4Pge = 1U << 7;
  kvm_sregs k{};
  VMM_TRY(get(KVM_GET_SREGS, &k, "KVM_GET_SREGS"));
  k.cr4 ^= kCr4Pge;
  VMM_TRY(set(KVM_SET_SREGS, &k, "KVM_SET_SREGS"));
  k.cr4 ^= kCr4Pge;
  return set(KVM_SET_SREGS, &k, "KVM_SET_SREGS");
}

namespace {

// Slot `n` in DR0 to DR3 and DR7: L and G, R/W and LEN (SDM volume 3, 17.2.4).
void arm_slot(kvm_guest_debug& k, std::size_t n, const DebugSlot& slot) {
  k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
  k.arch.debugreg[n] = slot.address;
  const std::uint64_t access = slot.kind == DebugSlot::Kind::kExecute ? 0
                               : slot.kind == DebugSlot::Kind::kWrite ? 1
                                                                      : 3;
  const std::uint64_t length = slot.kind == DebugSlot::Kind::kExecute || slot.size == 1 ? 0
                               : slot.size == 2                                         ? 1
                               : slot.size == 4                                         ? 3
                                                                                        : 2;
  k.arch.debugreg[7] |= 0x400 | 3ULL << (2 * n) | (access | length << 2) << (16 + 4 * n);
}

}  // namespace

Result<void> VcpuFd::set_guest_debug(const GuestDebug& debug) const {
  kvm_guest_debug k{};
  if (debug.single_step) k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  if (debug.single_step && debug.block_interrupts) k.control |= KVM_GUESTDBG_BLOCKIRQ;
  if (debug.software_breakpoints) k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  for (std::size_t n = 0; n < debug.slots.size(); ++n) {
    if (debug.slots[n]) arm_slot(k, n, *debug.slots[n]);
  }
  if (debug.hardware_breakpoint) {
    k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    k.arch.debugreg[0] = *debug.hardware_breakpoint;
    k.arch.debugreg[7] =
        0x402 | 0x1;  // G0 and L0: execution, one byte; bit 10 is always set (SDM volume 3, 17.2.4)
  }
  if (debug.write_watchpoint) {
    k.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    k.arch.debugreg[1] = *debug.write_watchpoint;
    // G1 and L1; R/W1 = writes only, LEN1 = 8 bytes (SDM volume 3, 17.2.4).
    k.arch.debugreg[7] |= 0x400 | 0xc | (0x1ULL << 20) | (0x2ULL << 22);
  }
  return set(KVM_SET_GUEST_DEBUG, &k, "KVM_SET_GUEST_DEBUG");
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

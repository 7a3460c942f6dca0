// What a CPU is given between two instructions, and what it waits for.
#include "vmm/kvm/vcpu_fd.h"

#include <array>

#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {
namespace {

struct MpStateName {
  MpState ours;
  std::uint32_t theirs;
};
constexpr std::array<MpStateName, 5> kMpStates{{
    {MpState::kRunnable, KVM_MP_STATE_RUNNABLE},
    {MpState::kUninitialized, KVM_MP_STATE_UNINITIALIZED},
    {MpState::kInitReceived, KVM_MP_STATE_INIT_RECEIVED},
    {MpState::kHalted, KVM_MP_STATE_HALTED},
    {MpState::kSipiReceived, KVM_MP_STATE_SIPI_RECEIVED},
}};

}  // namespace

void VcpuFd::forget_readiness() const noexcept { run_->ready_for_interrupt_injection = 0; }

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

Result<void> VcpuFd::clear_events() const {
  forget_readiness();
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return set(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
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

}  // namespace vmm::kvm

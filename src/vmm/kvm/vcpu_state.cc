#include "vmm/kvm/vcpu_state.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/kvm/flexible.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/ioctl_numbers.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::kvm {
namespace {

constexpr std::size_t kMostCpuidEntries = 256;  // KVM_MAX_CPUID_ENTRIES
constexpr std::size_t kMostMsrs = 4096;
constexpr std::size_t kMostXsave = 1 << 20;

template <typename T>
Result<T> get(const VcpuFd& cpu, unsigned long request, const char* name) {
  T value{};
  if (::ioctl(cpu.fd(), request, &value) < 0) {
    return fail_errno(errno, "{} on vCPU {}", name, cpu.id());
  }
  return value;
}

template <typename T>
Result<void> set(const VcpuFd& cpu, unsigned long request, const T& value, const char* name) {
  cpu.forget_picture();
  if (::ioctl(cpu.fd(), request, &value) < 0) {
    return fail_errno(errno, "{} on vCPU {}", name, cpu.id());
  }
  return {};
}

template <typename T>
Blob to_blob(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {{bytes.begin(), bytes.end()}};
}

x86::CpuEvents from_kvm(const kvm_vcpu_events& k) {
  x86::CpuEvents e;
  e.exception_injected = k.exception.injected != 0;
  e.exception_pending = k.exception.pending != 0;
  e.exception_has_error = k.exception.has_error_code != 0;
  e.exception = k.exception.nr;
  e.exception_error = k.exception.error_code;
  e.interrupt_injected = k.interrupt.injected != 0;
  e.interrupt_soft = k.interrupt.soft != 0;
  e.interrupt = k.interrupt.nr;
  e.interrupt_shadow = k.interrupt.shadow;
  e.nmi_injected = k.nmi.injected != 0;
  e.nmi_masked = k.nmi.masked != 0;
  e.nmi_pending = k.nmi.pending;
  e.sipi_vector = k.sipi_vector;
  e.smm = k.smi.smm != 0;
  e.smi_pending = k.smi.pending != 0;
  e.smm_inside_nmi = k.smi.smm_inside_nmi != 0;
  e.latched_init = k.smi.latched_init != 0;
  return e;
}

kvm_vcpu_events to_kvm(const x86::CpuEvents& e) {
  kvm_vcpu_events k{};
  // Without KVM_CAP_EXCEPTION_PAYLOAD, which this program does not enable, KVM takes a pending
  // exception as an injected one.
  k.exception.injected = e.exception_injected || e.exception_pending;
  k.exception.has_error_code = e.exception_has_error;
  k.exception.nr = e.exception;
  k.exception.error_code = e.exception_error;
  k.interrupt.injected = e.interrupt_injected;
  k.interrupt.soft = e.interrupt_soft;
  k.interrupt.nr = e.interrupt;
  k.interrupt.shadow = e.interrupt_shadow;
  k.nmi.injected = e.nmi_injected;
  k.nmi.masked = e.nmi_masked;
  k.nmi.pending = e.nmi_pending;
  k.sipi_vector = e.sipi_vector;
  k.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
            KVM_VCPUEVENT_VALID_SIPI_VECTOR;
  if (e.smm || e.smi_pending || e.smm_inside_nmi || e.latched_init) {
    k.flags |= KVM_VCPUEVENT_VALID_SMM;
    k.smi.smm = e.smm;
    k.smi.pending = e.smi_pending;
    k.smi.smm_inside_nmi = e.smm_inside_nmi;
    k.smi.latched_init = e.latched_init;
  }
  return k;
}

Result<std::vector<x86::CpuidEntry>> read_cpuid(const VcpuFd& cpu) {
  CpuidTable table(kMostCpuidEntries);
  table.head().nent = kMostCpuidEntries;
  if (::ioctl(cpu.fd(), kGetCpuid2, table.get()) < 0) {
    return fail_errno(errno, "KVM_GET_CPUID2 on vCPU {}", cpu.id());
  }
  std::vector<x86::CpuidEntry> entries;
  for (const kvm_cpuid_entry2& e :
       table.entries(std::min<std::size_t>(table.head().nent, kMostCpuidEntries))) {
    entries.push_back({e.function, e.index, (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0, e.eax,
                       e.ebx, e.ecx, e.edx});
  }
  return entries;
}

// What a CPU has that was just made (SDM volume 1, 13.3; volume 3, table 10-1).
constexpr std::uint64_t kResetXcr0 = 1, kResetDr6 = 0xffff'0ff0, kResetDr7 = 0x400;

bool has_reset_debug_registers(const VcpuState& state) {
  return state.dr == decltype(state.dr){} && state.dr6 == kResetDr6 && state.dr7 == kResetDr7;
}

// Of a CPU that was just made most MSRs are as in any state: asking for all of them costs one
// request, setting them that and more.
Result<void> leave_out_what_it_has(const VcpuFd& cpu, std::vector<Msr>& msrs) {
  std::vector<Msr> has = msrs;
  const std::size_t known = VMM_TRY(cpu.read_msrs(has));
  std::size_t kept = 0;
  for (std::size_t i = 0; i < msrs.size(); ++i) {
    if (i >= known || msrs[i] != has[i]) msrs[kept++] = msrs[i];
  }
  msrs.resize(kept);
  return {};
}

// In the order of setting.
int rank(std::uint32_t index) {
  if (index == x86::kMsrTsc) return 0;
  return index == x86::kMsrTscDeadline ? 2 : 1;
}

bool is_set_before(const Msr& a, const Msr& b) { return rank(a.index) < rank(b.index); }

}  // namespace

Result<x86::CpuEvents> cpu_events(const VcpuFd& cpu) {
  return from_kvm(VMM_TRY(get<kvm_vcpu_events>(cpu, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS")));
}

Result<void> set_cpu_events(const VcpuFd& cpu, const x86::CpuEvents& events) {
  return set(cpu, KVM_SET_VCPU_EVENTS, to_kvm(events), "KVM_SET_VCPU_EVENTS");
}

Result<void> VcpuState::validate() const {
  if (cpuid.size() > kMostCpuidEntries || msrs.size() > kMostMsrs ||
      xsave.bytes.size() > kMostXsave || mp_state >= static_cast<std::uint8_t>(MpState::kOther) ||
      (lapic && lapic->bytes.size() != sizeof(kvm_lapic_state))) {
    return fail(ErrorCode::kBadState, "The state of a CPU has parts of a size that cannot be");
  }
  return {};
}

VcpuStateFormat::VcpuStateFormat(std::vector<std::uint32_t> listed, bool lapic, bool xcrs)
    : listed_(std::move(listed)), sorted_(listed_), lapic_(lapic), xcrs_(xcrs) {
  std::stable_sort(listed_.begin(), listed_.end(),
                   [](std::uint32_t a, std::uint32_t b) { return rank(a) < rank(b); });
  std::sort(sorted_.begin(), sorted_.end());
}

Result<std::uint32_t> VcpuStateFormat::tsc_khz(const VcpuFd& cpu) {
  if (!tsc_khz_) tsc_khz_ = VMM_TRY(cpu.tsc_khz());
  return *tsc_khz_;
}

Result<std::vector<Msr>> VcpuStateFormat::msrs(const VcpuFd& cpu) {
  const bool ask = known_.empty();
  const std::vector<std::uint32_t>& wanted = ask ? listed_ : known_;
  std::vector<Msr> found;
  // KVM stops at the first MSR that this guest does not have: the next call begins behind it.
  for (std::size_t at = 0; at < wanted.size();) {
    const std::size_t count = wanted.size() - at;
    MsrTable table(count);
    table.head().nmsrs = static_cast<std::uint32_t>(count);
    const auto entries = table.entries(count);
    for (std::size_t i = 0; i < count; ++i) entries[i].index = wanted[at + i];
    const int n = ::ioctl(cpu.fd(), kGetMsrs, table.get());
    if (n < 0) return fail_errno(errno, "KVM_GET_MSRS on vCPU {}", cpu.id());
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      found.push_back({entries[i].index, entries[i].data});
    }
    at += static_cast<std::size_t>(n);
    if (at < wanted.size()) ++at;
  }
  if (ask) {
    for (const Msr& msr : found) known_.push_back(msr.index);
  }
  return found;
}

Result<VcpuState> VcpuStateFormat::save(const VcpuFd& cpu) {
  VcpuState state;
  state.mp_state = static_cast<std::uint8_t>(VMM_TRY(cpu.mp_state()));
  state.registers = VMM_TRY(cpu.registers());
  state.system = VMM_TRY(cpu.system_registers());
  state.xsave.bytes = VMM_TRY(cpu.xsave());
  state.has_xcrs = xcrs_;
  if (xcrs_) state.xcr0 = VMM_TRY(cpu.xcr0());
  const auto debug = VMM_TRY(get<kvm_debugregs>(cpu, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS"));
  std::copy(std::begin(debug.db), std::end(debug.db), state.dr.begin());
  state.dr6 = debug.dr6;
  state.dr7 = debug.dr7;
  if (lapic_) {
    state.lapic = to_blob(VMM_TRY(get<kvm_lapic_state>(cpu, KVM_GET_LAPIC, "KVM_GET_LAPIC")));
  }
  state.msrs = VMM_TRY(msrs(cpu));
  state.events = VMM_TRY(cpu_events(cpu));
  state.cpuid = VMM_TRY(read_cpuid(cpu));
  return state;
}

// All of them, or an error that names the first that KVM would not have and that is not as wanted
// anyway: some can be read and have one value only. These are left out from then on, since each of
// them ends a request.
Result<void> VcpuStateFormat::set_msrs(const VcpuFd& cpu, std::span<const Msr> msrs) {
  MsrTable table(msrs.size());
  std::size_t count = 0;
  for (const Msr& msr : msrs) {
    if (std::find(fixed_.begin(), fixed_.end(), msr) != fixed_.end()) continue;
    kvm_msr_entry& entry = table.entries(msrs.size())[count++];
    entry.index = msr.index;
    entry.data = msr.value;
  }
  table.head().nmsrs = static_cast<std::uint32_t>(count);
  cpu.forget_picture();
  const int n = ::ioctl(cpu.fd(), kSetMsrs, table.get());
  if (n < 0) return fail_errno(errno, "KVM_SET_MSRS on vCPU {}", cpu.id());
  if (static_cast<std::size_t>(n) == count) return {};
  const kvm_msr_entry& entry = table.entries(count)[static_cast<std::size_t>(n)];
  const Msr refused{entry.index, entry.data};
  const auto now = cpu.msr(refused.index);
  if (!now || *now != refused.value) {
    return fail(ErrorCode::kBadState, "KVM refuses the value {:#x} for MSR {:#x} of vCPU {}",
                refused.value, refused.index, cpu.id());
  }
  fixed_.push_back(refused);
  return set_msrs(cpu, msrs);
}

Result<void> VcpuStateFormat::check_listed(std::span<const Msr> msrs) const {
  for (const Msr& msr : msrs) {
    if (!std::binary_search(sorted_.begin(), sorted_.end(), msr.index)) {
      return fail(ErrorCode::kBadState, "This host's KVM does not know MSR {:#x}", msr.index);
    }
  }
  return {};
}

Result<void> VcpuStateFormat::restore(const VcpuFd& cpu, const VcpuState& state, bool fresh) {
  VMM_TRY(state.validate());
  if (state.lapic.has_value() != lapic_ || state.has_xcrs != xcrs_) {
    return fail(ErrorCode::kBadState,
                "The state of vCPU {} is of a KVM that keeps other parts of it", cpu.id());
  }
  VMM_TRY(check_listed(state.msrs));
  if (fresh) VMM_TRY(cpu.set_cpuid(state.cpuid));
  VMM_TRY(cpu.replace_system_registers(state.system));
  VMM_TRY(cpu.set_registers(state.registers));
  if (xcrs_ && !(fresh && state.xcr0 == kResetXcr0)) VMM_TRY(cpu.set_xcr0(state.xcr0));
  VMM_TRY(cpu.set_xsave(state.xsave.bytes));
  // Without local APICs in KVM a CPU that waits is the user irqchip's business, and for KVM each is
  // always runnable.
  if (lapic_) VMM_TRY(cpu.set_mp_state(static_cast<MpState>(state.mp_state)));
  if (state.lapic) {
    kvm_lapic_state lapic{};
    std::memcpy(&lapic, state.lapic->bytes.data(), sizeof lapic);
    VMM_TRY(set(cpu, KVM_SET_LAPIC, lapic, "KVM_SET_LAPIC"));
  }
  std::vector<Msr> msrs = state.msrs;
  std::stable_sort(msrs.begin(), msrs.end(), is_set_before);
  if (fresh) VMM_TRY(leave_out_what_it_has(cpu, msrs));
  VMM_TRY(set_msrs(cpu, msrs));
  if (!fresh || !has_reset_debug_registers(state)) {
    kvm_debugregs debug{};
    std::copy(state.dr.begin(), state.dr.end(), std::begin(debug.db));
    debug.dr6 = state.dr6;
    debug.dr7 = state.dr7;
    VMM_TRY(set(cpu, KVM_SET_DEBUGREGS, debug, "KVM_SET_DEBUGREGS"));
  }
  if (fresh && state.events == x86::CpuEvents()) return {};
  return set_cpu_events(cpu, state.events);
}

}  // namespace vmm::kvm

// Registers of a CPU: general, system, model-specific, extended.
#include "vmm/kvm/vcpu_fd.h"

#include <algorithm>
#include <array>

#include "vmm/kvm/flexible.h"
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

}  // namespace

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

Result<x86::Registers> VcpuFd::registers() const {
  if (has_picture_) return shared_registers();
  kvm_regs k{};
  VMM_TRY(get(KVM_GET_REGS, &k, "KVM_GET_REGS"));
  return from_kvm(k);
}

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

std::uint8_t VcpuFd::cr8() const noexcept { return static_cast<std::uint8_t>(run_->cr8 & 0xf); }

void VcpuFd::set_cr8(std::uint8_t value) noexcept { run_->cr8 = value; }

std::uint64_t VcpuFd::apic_base() const noexcept { return run_->apic_base; }

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

}  // namespace vmm::kvm

#include "vmm/kvm/lapic_page.h"

#include <linux/kvm.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "devices/lapic.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::kvm {
namespace {

constexpr unsigned kIdShift = 24;

using Registers = x86::LapicRegisters;

Result<LapicRegisterPage> page_of(const VcpuFd& cpu) {
  kvm_lapic_state raw{};
  if (::ioctl(cpu.fd(), KVM_GET_LAPIC, &raw) < 0) {
    return fail_errno(errno, "KVM_GET_LAPIC on vCPU {}", cpu.id());
  }
  static_assert(sizeof raw.regs == LapicRegisterPage::kSize);
  LapicRegisterPage page;
  std::memcpy(page.bytes().data(), raw.regs, sizeof raw.regs);
  return page;
}

Result<void> give(const VcpuFd& cpu, const LapicRegisterPage& page) {
  kvm_lapic_state raw{};
  std::memcpy(raw.regs, page.bytes().data(), sizeof raw.regs);
  cpu.forget_picture();  // CR8 is a part of the local APIC
  if (::ioctl(cpu.fd(), KVM_SET_LAPIC, &raw) < 0) {
    return fail_errno(errno, "KVM_SET_LAPIC on vCPU {}", cpu.id());
  }
  return {};
}

}  // namespace

Result<Registers> lapic_registers(const VcpuFd& cpu) {
  const LapicRegisterPage page = VMM_TRY(page_of(cpu));
  Registers r;
  r.id = static_cast<std::uint8_t>(page.get(Lapic::kId) >> kIdShift);
  r.version = page.get(Lapic::kVersion);
  r.tpr = static_cast<std::uint8_t>(page.get(Lapic::kTpr));
  r.ppr = static_cast<std::uint8_t>(page.get(Lapic::kPpr));
  r.ldr = page.get(Lapic::kLdr);
  r.dfr = page.get(Lapic::kDfr);
  r.svr = page.get(Lapic::kSvr);
  page.get_many(Lapic::kIsr, r.isr);
  page.get_many(Lapic::kTmr, r.tmr);
  page.get_many(Lapic::kIrr, r.irr);
  r.esr = page.get(Lapic::kEsr);
  r.icr = std::uint64_t{page.get(Lapic::kIcrHigh)} << 32 | page.get(Lapic::kIcr);
  std::uint32_t number = Lapic::kLvtTimer;
  for (const auto field : Registers::lvt()) r.*field = page.get(number++);
  r.initial_count = page.get(Lapic::kInitialCount);
  r.current_count = page.get(Lapic::kCurrentCount);
  r.divide = page.get(Lapic::kDivide);
  r.tsc_deadline = cpu.msr(x86::kMsrTscDeadline).value_or(0);
  return r;
}

void write_registers(LapicRegisterPage& page, const Registers& r) {
  page.set(Lapic::kId, std::uint32_t{r.id} << kIdShift);
  page.set(Lapic::kTpr, r.tpr);
  page.set(Lapic::kLdr, r.ldr);
  page.set(Lapic::kDfr, r.dfr);
  page.set(Lapic::kSvr, r.svr);
  page.set_many(Lapic::kIsr, r.isr);
  page.set_many(Lapic::kTmr, r.tmr);
  page.set_many(Lapic::kIrr, r.irr);
  page.set(Lapic::kEsr, r.esr);
  page.set(Lapic::kIcr, static_cast<std::uint32_t>(r.icr));
  page.set(Lapic::kIcrHigh, static_cast<std::uint32_t>(r.icr >> 32));
  std::uint32_t number = Lapic::kLvtTimer;
  for (const auto field : Registers::lvt()) page.set(number++, r.*field);
  page.set(Lapic::kInitialCount, r.initial_count);
  page.set(Lapic::kCurrentCount, r.current_count);
  page.set(Lapic::kDivide, r.divide);
}

Result<void> set_lapic_registers(const VcpuFd& cpu, const Registers& r) {
  LapicRegisterPage page = VMM_TRY(page_of(cpu));
  write_registers(page, r);
  VMM_TRY(give(cpu, page));
  if (cpu.msr(x86::kMsrTscDeadline).value_or(r.tsc_deadline) == r.tsc_deadline) return {};
  const std::array<Msr, 1> deadline{{{x86::kMsrTscDeadline, r.tsc_deadline}}};
  return cpu.set_msrs(deadline);
}

}  // namespace vmm::kvm

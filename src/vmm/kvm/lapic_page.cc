#include "vmm/kvm/lapic_page.h"

#include <linux/kvm.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/kvm/ioctl.h"

namespace vmm::kvm {
namespace {

constexpr std::uint32_t kTscDeadlineMsr = 0x6e0;

// Offsets in the register page (SDM volume 3, table 11-1).
enum Offset : std::size_t {
  kId = 0x20,
  kVersion = 0x30,
  kTpr = 0x80,
  kPpr = 0xa0,
  kLdr = 0xd0,
  kDfr = 0xe0,
  kSvr = 0xf0,
  kIsr = 0x100,
  kTmr = 0x180,
  kIrr = 0x200,
  kEsr = 0x280,
  kIcr = 0x300,
  kIcrHigh = 0x310,
  kInitialCount = 0x380,
  kCurrentCount = 0x390,
  kDivide = 0x3e0,
};
constexpr unsigned kIdShift = 24;  // without KVM_X2APIC_API_USE_32BIT_IDS in x2APIC mode, too

using Registers = x86::LapicRegisters;

struct LvtField {
  std::size_t offset;
  std::uint32_t Registers::*field;
};
constexpr std::array<LvtField, 6> kLvt{{{0x320, &Registers::lvt_timer},
                                        {0x330, &Registers::lvt_thermal},
                                        {0x340, &Registers::lvt_performance},
                                        {0x350, &Registers::lvt_lint0},
                                        {0x360, &Registers::lvt_lint1},
                                        {0x370, &Registers::lvt_error}}};

// KVM's page, register by register.
class Page {
 public:
  static Result<Page> of(const VcpuFd& cpu) {
    Page page;
    if (::ioctl(cpu.fd(), KVM_GET_LAPIC, &page.raw_) < 0) {
      return fail_errno(errno, "KVM_GET_LAPIC on vCPU {}", cpu.id());
    }
    return page;
  }
  Result<void> give(const VcpuFd& cpu) const {
    if (::ioctl(cpu.fd(), KVM_SET_LAPIC, &raw_) < 0) {
      return fail_errno(errno, "KVM_SET_LAPIC on vCPU {}", cpu.id());
    }
    return {};
  }

  std::uint32_t get(std::size_t offset) const {
    std::uint32_t value = 0;
    std::memcpy(&value, &raw_.regs[offset], sizeof value);
    return value;
  }
  void put(std::size_t offset, std::uint32_t value) {
    std::memcpy(&raw_.regs[offset], &value, sizeof value);
  }
  Registers::Vectors vectors(std::size_t offset) const {
    Registers::Vectors all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = get(offset + 0x10 * i);
    return all;
  }
  void put_vectors(std::size_t offset, const Registers::Vectors& all) {
    for (std::size_t i = 0; i < all.size(); ++i) put(offset + 0x10 * i, all[i]);
  }

 private:
  kvm_lapic_state raw_{};
};

}  // namespace

Result<Registers> lapic_registers(const VcpuFd& cpu) {
  const Page page = VMM_TRY(Page::of(cpu));
  Registers r;
  r.id = static_cast<std::uint8_t>(page.get(kId) >> kIdShift);
  r.version = page.get(kVersion);
  r.tpr = static_cast<std::uint8_t>(page.get(kTpr));
  r.ppr = static_cast<std::uint8_t>(page.get(kPpr));
  r.ldr = page.get(kLdr);
  r.dfr = page.get(kDfr);
  r.svr = page.get(kSvr);
  r.isr = page.vectors(kIsr);
  r.tmr = page.vectors(kTmr);
  r.irr = page.vectors(kIrr);
  r.esr = page.get(kEsr);
  r.icr = std::uint64_t{page.get(kIcrHigh)} << 32 | page.get(kIcr);
  for (const LvtField& entry : kLvt) r.*entry.field = page.get(entry.offset);
  r.initial_count = page.get(kInitialCount);
  r.current_count = page.get(kCurrentCount);
  r.divide = page.get(kDivide);
  r.tsc_deadline = cpu.msr(kTscDeadlineMsr).value_or(0);
  return r;
}

Result<void> set_lapic_registers(const VcpuFd& cpu, const Registers& r) {
  Page page = VMM_TRY(Page::of(cpu));
  page.put(kId, std::uint32_t{r.id} << kIdShift);
  page.put(kTpr, r.tpr);
  page.put(kLdr, r.ldr);
  page.put(kDfr, r.dfr);
  page.put(kSvr, r.svr);
  page.put_vectors(kIsr, r.isr);
  page.put_vectors(kTmr, r.tmr);
  page.put_vectors(kIrr, r.irr);
  page.put(kEsr, r.esr);
  page.put(kIcr, static_cast<std::uint32_t>(r.icr));
  page.put(kIcrHigh, static_cast<std::uint32_t>(r.icr >> 32));
  for (const LvtField& entry : kLvt) page.put(entry.offset, r.*entry.field);
  page.put(kInitialCount, r.initial_count);
  page.put(kCurrentCount, r.current_count);
  page.put(kDivide, r.divide);
  VMM_TRY(page.give(cpu));
  if (cpu.msr(kTscDeadlineMsr).value_or(r.tsc_deadline) == r.tsc_deadline) return {};
  const std::array<Msr, 1> deadline{{{kTscDeadlineMsr, r.tsc_deadline}}};
  return cpu.set_msrs(deadline);
}

}  // namespace vmm::kvm

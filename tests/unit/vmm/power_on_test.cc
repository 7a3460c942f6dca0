#include "vmm/power_on.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"
#include "vmm/kvm/lapic_register_page.h"

namespace vmm {
namespace {

using kvm::MpState;
using kvm::Msr;
using testing::ElementsAre;

kvm::VcpuState used() {
  kvm::VcpuState state;
  state.mp_state = static_cast<std::uint8_t>(MpState::kHalted);
  state.registers.rip = 0xffff'ffff'8100'0000;
  state.registers.rflags = 0x202;
  state.system.cr0 = 0x8000'0033;
  state.system.cr3 = 0x1000;
  state.system.efer = 0xd01;
  state.system.apic_base = 0xfee0'0d00;  // x2APIC
  state.xsave.bytes.assign(4096, std::byte{0x55});
  state.xcr0 = 7;
  state.dr = {1, 2, 3, 4};
  state.dr7 = 0x455;
  state.events.nmi_masked = true;
  state.events.exception_pending = true;
  return state;
}

TEST(PowerOn, Registers_areThoseAfterAReset) {
  kvm::VcpuState state = used();
  power_on(state, 0, IrqchipMode::kUser);
  EXPECT_EQ(state.registers.rip, 0xfff0U);
  EXPECT_EQ(state.registers.rflags, 2U);
  EXPECT_EQ(state.system.cr0, 0x10U);
  EXPECT_EQ(state.system.cr3 | state.system.efer, 0U);
  EXPECT_EQ(state.system.apic_base, 0xfee0'0900U);
  EXPECT_EQ(state.xcr0, 1U);
  EXPECT_EQ(state.dr, (std::array<std::uint64_t, 4>{}));
  EXPECT_EQ(state.dr7, 0x400U);
  EXPECT_EQ(state.events, x86::CpuEvents{});
}

TEST(PowerOn, Fpu_isEmpty) {
  kvm::VcpuState state = used();
  power_on(state, 0, IrqchipMode::kUser);
  const std::span<const std::byte> area(state.xsave.bytes);
  ASSERT_EQ(area.size(), 4096U);
  EXPECT_EQ(load_le(area.subspan(0, 2)), 0x37fU);
  EXPECT_EQ(load_le(area.subspan(24, 4)), 0x1f80U);
  EXPECT_EQ(load_le(area.subspan(512, 8)), 0U);  // XSTATE_BV
}

TEST(PowerOn, OtherCpus_waitWhereKvmHasTheLocalApics) {
  for (const IrqchipMode mode : {IrqchipMode::kKernel, IrqchipMode::kSplit}) {
    kvm::VcpuState first = used(), second = used();
    power_on(first, 0, mode);
    power_on(second, 1, mode);
    EXPECT_EQ(first.mp_state, static_cast<std::uint8_t>(MpState::kRunnable));
    EXPECT_EQ(second.mp_state, static_cast<std::uint8_t>(MpState::kUninitialized));
    EXPECT_EQ(second.system.apic_base, 0xfee0'0800U);
  }
  kvm::VcpuState second = used();
  power_on(second, 1, IrqchipMode::kUser);
  EXPECT_EQ(second.mp_state, static_cast<std::uint8_t>(MpState::kRunnable));
}

TEST(PowerOn, Msrs_areTheFirmwaresAgainOrOff) {
  kvm::VcpuState state = used();
  state.msrs = {{0x10, 77},       {0x3b, 5},         {0x174, 0x10},   {0x200, 6},
                {0x277, 0},       {0x2ff, 0},        {0x6e0, 12345},  {0x4b56'4d01, 0x3001},
                {0x4b56'4d05, 1}, {0xc000'0082, 99}, {0xc000'0103, 3}};
  power_on(state, 0, IrqchipMode::kKernel);
  // The TSC and its adjustment are not to be written at all.
  EXPECT_THAT(state.msrs,
              ElementsAre(Msr{0x174, 0}, Msr{0x200, 6}, Msr{0x277, 0x0007'0406'0007'0406},
                          Msr{0x2ff, 0x806}, Msr{0x6e0, 0}, Msr{0x4b56'4d01, 0},
                          Msr{0x4b56'4d05, 1}, Msr{0xc000'0082, 0}, Msr{0xc000'0103, 0}));
}

TEST(PowerOn, LocalApicOfKvms_isReset) {
  constexpr std::uint32_t kId = 2, kTpr = 8, kSvr = 0xf, kIrr = 0x20, kLint0 = 0x35;
  kvm::LapicRegisterPage page;
  page.set(kTpr, 0x20);
  page.set(kSvr, 0x1ff);
  page.set(kIrr, 0x10);
  kvm::VcpuState first = used(), second = used();
  first.lapic = second.lapic = Blob{{page.bytes().begin(), page.bytes().end()}};
  power_on(first, 0, IrqchipMode::kKernel);
  power_on(second, 1, IrqchipMode::kKernel);
  const kvm::LapicRegisterPage of_first(first.lapic->bytes), of_second(second.lapic->bytes);
  EXPECT_EQ(of_second.get(kId), 1U << 24);
  EXPECT_EQ(of_second.get(kTpr) | of_second.get(kIrr), 0U);
  EXPECT_EQ(of_second.get(kSvr), 0xffU);
  EXPECT_EQ(of_second.get(kLint0), 0x1'0000U);
  EXPECT_EQ(of_first.get(kLint0), 0x700U);
}

}  // namespace
}  // namespace vmm

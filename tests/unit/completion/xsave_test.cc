// The XSAVE family: which bytes go where.
#include <gtest/gtest.h>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kArea = 0x20000;
const std::vector<std::uint8_t> kXsave64{0x48, 0x0f, 0xae, 0x20};
const std::vector<std::uint8_t> kXrstor64{0x48, 0x0f, 0xae, 0x28};
const std::vector<std::uint8_t> kXsavec64{0x48, 0x0f, 0xc7, 0x20};
const std::vector<std::uint8_t> kXsaves64{0x48, 0x0f, 0xc7, 0x28};
const std::vector<std::uint8_t> kXrstors64{0x48, 0x0f, 0xc7, 0x18};
const std::vector<std::uint8_t> kFxsave64{0x48, 0x0f, 0xae, 0x00};
const std::vector<std::uint8_t> kFxrstor64{0x48, 0x0f, 0xae, 0x08};

class XsaveTest : public testing::Test, protected TestGuest {
 protected:
  // XMM3 and the upper half of YMM3 have values; x87, SSE and AVX are in use. The instructions
  // address [rax], or [rcx] when rax holds the mask.
  void SetUp() override {
    store_area<std::uint64_t>(512, 7);
    store_area<std::uint64_t>(160 + 48, 0x3333333333333333);
    store_area<std::uint64_t>(576 + 48, 0xaaaaaaaaaaaaaaaa);
    store_area<std::uint64_t>(8, 0xffffffff81000000);  // FIP
    cpu.regs.gpr[x86::kRcx] = kArea;
    mask(~0ULL);
  }
  void mask(std::uint64_t value) {
    cpu.regs.gpr[x86::kRax] = value & 0xffffffff;
    cpu.regs.gpr[x86::kRdx] = value >> 32;
  }
  // The same instruction with [rcx].
  static std::vector<std::uint8_t> at_rcx(std::vector<std::uint8_t> bytes) {
    bytes.back() |= 1;
    return bytes;
  }
};

TEST_F(XsaveTest, Xsave_WritesTheStandardFormat) {
  finishes(at_rcx(kXsave64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 160 + 48), 0x3333333333333333U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 576 + 48), 0xaaaaaaaaaaaaaaaaU);
  EXPECT_EQ(get<std::uint32_t>(kArea + 24), 0x1f80U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 512), 7U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 520), 0U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 8), 0xffffffff81000000U);
}

TEST_F(XsaveTest, Xsave_WithoutRexWHasShortPointers) {
  finishes({0x0f, 0xae, 0x21});
  EXPECT_EQ(get<std::uint64_t>(kArea + 8), 0x81000000U);
}

TEST_F(XsaveTest, Xsave_LeavesWhatWasNotAskedFor) {
  put<std::uint64_t>(kArea + 160 + 48, 0x77);
  put<std::uint64_t>(kArea + 512, 0x2);
  put<std::uint64_t>(kArea + 464, 0x99);  // software's own bytes
  mask(1);
  finishes(at_rcx(kXsave64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 160 + 48), 0x77U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 512), 3U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 464), 0x99U);
  EXPECT_EQ(get<std::uint32_t>(kArea + 24), 0U);
  EXPECT_EQ(get<std::uint16_t>(kArea), 0x37fU);
}

TEST_F(XsaveTest, Xsave_IsMaskedByXcr0) {
  cpu.xcr0_value = 3;
  finishes(at_rcx(kXsave64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 512), 3U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 576 + 48), 0U);
}

TEST_F(XsaveTest, Xsavec_CompactsAndSkipsWhatIsNotInUse) {
  cpu.xcr0_value = 0xe7;
  xsave_layout.components[2].aligned = false;
  store_area<std::uint64_t>(512, 0x44);  // AVX and the upper halves of ZMM0 to ZMM15
  store_area<std::uint64_t>(1152 + 8, 0x5555);
  put<std::uint64_t>(kArea + 160 + 48, 0x77);
  finishes(at_rcx(kXsavec64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 512), 0x44U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 520), 0x80000000000000e7U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 160 + 48), 0x77U);  // SSE is not in use
  EXPECT_EQ(get<std::uint64_t>(kArea + 576 + 48), 0xaaaaaaaaaaaaaaaaU);
  EXPECT_EQ(get<std::uint64_t>(kArea + 576 + 256 + 64 + 8), 0x5555U);  // behind AVX and opmask
}

TEST_F(XsaveTest, Xsaves_IsTheSupervisors) {
  finishes(at_rcx(kXsaves64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 520), 0x8000000000000007U);
  to_user_mode();
  faults(at_rcx(kXsaves64), x86::Vector::kGeneralProtection, 0);
}

TEST_F(XsaveTest, Xsave_NeedsAlignment) {
  cpu.regs.gpr[x86::kRcx] = kArea + 32;
  faults(at_rcx(kXsave64), x86::Vector::kGeneralProtection, 0);
}

TEST_F(XsaveTest, Xsave_ChecksTheWholeAreaFirst) {
  map(0x21, 0x21005);
  cpu.regs.gpr[x86::kRcx] = 0x20e00;
  faults(at_rcx(kXsave64), x86::Vector::kPageFault, kFaultPresent | kFaultWrite);
  EXPECT_EQ(cpu.event->cr2, 0x21000U);
  EXPECT_EQ(get<std::uint64_t>(0x20e00), 0U);
}

TEST_F(XsaveTest, Xsave_NeedsOsxsaveAndNoTs) {
  cpu.system.cr0 |= x86::kCr0Ts;
  faults(at_rcx(kXsave64), x86::Vector::kDeviceNotAvailable);
  cpu.system.cr4 &= ~x86::kCr4Osxsave;
  faults(at_rcx(kXsave64), x86::Vector::kInvalidOpcode);
}

TEST_F(XsaveTest, Xrstor_RoundTrip) {
  finishes(at_rcx(kXsave64));
  const x86::XsaveArea before = cpu.area;
  store_area<std::uint64_t>(160 + 48, 0);
  store_area<std::uint64_t>(576 + 48, 0);
  store_area<std::uint32_t>(24, 0x1fbf);
  store_area<std::uint16_t>(0, 0x27f);
  finishes(at_rcx(kXrstor64));
  EXPECT_EQ(cpu.area, before);
}

TEST_F(XsaveTest, Xrstors_RoundTripOfTheCompactedFormat) {
  cpu.xcr0_value = 0xe7;
  store_area<std::uint64_t>(1664 + 8, 0x7777);
  store_area<std::uint64_t>(512, 0x87);
  finishes(at_rcx(kXsaves64));
  const x86::XsaveArea before = cpu.area;
  std::fill(cpu.area.begin() + 160, cpu.area.begin() + 512, std::byte{0x11});
  std::fill(cpu.area.begin() + 576, cpu.area.begin() + 832, std::byte{0x11});
  std::fill(cpu.area.begin() + 1664, cpu.area.begin() + 2688, std::byte{0x11});
  std::fill(cpu.area.begin() + 416, cpu.area.begin() + 512, std::byte{0});
  finishes(at_rcx(kXrstors64));
  EXPECT_EQ(cpu.area, before);
}

TEST_F(XsaveTest, Xrstor_ResetsWhatTheAreaDoesNotHold) {
  finishes(at_rcx(kXsave64));
  put<std::uint64_t>(kArea + 512, 0);
  finishes(at_rcx(kXrstor64));
  EXPECT_EQ(load_area<std::uint64_t>(160 + 48), 0U);
  EXPECT_EQ(load_area<std::uint64_t>(576 + 48), 0U);
  EXPECT_EQ(load_area<std::uint16_t>(0), 0x37fU);
  EXPECT_EQ(load_area<std::uint64_t>(512), 0U);
}

TEST_F(XsaveTest, Xrstor_LeavesWhatWasNotAskedFor) {
  finishes(at_rcx(kXsave64));
  store_area<std::uint64_t>(576 + 48, 0x12);
  mask(3);
  finishes(at_rcx(kXrstor64));
  EXPECT_EQ(load_area<std::uint64_t>(576 + 48), 0x12U);
}

TEST_F(XsaveTest, Xrstor_RefusesBadHeaders) {
  finishes(at_rcx(kXsave64));
  put<std::uint64_t>(kArea + 512, 0x8);  // not in XCR0
  faults(at_rcx(kXrstor64), x86::Vector::kGeneralProtection, 0);
  put<std::uint64_t>(kArea + 512, 7);
  put<std::uint64_t>(kArea + 528, 1);  // reserved
  faults(at_rcx(kXrstor64), x86::Vector::kGeneralProtection, 0);
  put<std::uint64_t>(kArea + 528, 0);
  put<std::uint64_t>(kArea + 520, 0x8000000000000003);  // holds less than XSTATE_BV says
  faults(at_rcx(kXrstor64), x86::Vector::kGeneralProtection, 0);
  put<std::uint64_t>(kArea + 520, 1);  // compacted without saying so
  faults(at_rcx(kXrstor64), x86::Vector::kGeneralProtection, 0);
}

TEST_F(XsaveTest, Xrstors_WantsTheCompactedFormat) {
  finishes(at_rcx(kXsave64));
  faults(at_rcx(kXrstors64), x86::Vector::kGeneralProtection, 0);
}

TEST_F(XsaveTest, Xrstor_RefusesReservedMxcsrBits) {
  finishes(at_rcx(kXsave64));
  put<std::uint32_t>(kArea + 24, 0x80001f80);
  faults(at_rcx(kXrstor64), x86::Vector::kGeneralProtection, 0);
  EXPECT_EQ(load_area<std::uint32_t>(24), 0x1f80U);
}

TEST_F(XsaveTest, Fxsave_RoundTrip) {
  put<std::uint64_t>(kArea + 464, 0x99);
  finishes(at_rcx(kFxsave64));
  EXPECT_EQ(get<std::uint64_t>(kArea + 160 + 48), 0x3333333333333333U);
  EXPECT_EQ(get<std::uint64_t>(kArea + 464), 0x99U);
  store_area<std::uint64_t>(160 + 48, 0);
  finishes(at_rcx(kFxrstor64));
  EXPECT_EQ(load_area<std::uint64_t>(160 + 48), 0x3333333333333333U);
  EXPECT_EQ(load_area<std::uint64_t>(576 + 48), 0xaaaaaaaaaaaaaaaaU);
}

TEST_F(XsaveTest, Fxsave_IsNotAvailableWithTs) {
  cpu.system.cr0 |= x86::kCr0Ts;
  faults(at_rcx(kFxsave64), x86::Vector::kDeviceNotAvailable);
}

}  // namespace
}  // namespace vmm::completion

#include "vmm/completion/sandbox.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

// A guest of plain values whose instructions run in a real sandbox, without fast paths.
class SandboxTest : public testing::Test, protected TestGuest {
 protected:
  void SetUp() override {
    auto system = kvm::System::open();
    if (!system) GTEST_SKIP() << system.error().message();
    system_.emplace(std::move(*system));
    sandbox_.emplace(*system_);
    runner = &*sandbox_;
    fast_paths = false;
    xsave_layout = XsaveLayout::host();
    cpu.area.resize(system_->capabilities().xsave_size);
    cpu.xcr0_value = xsave_layout.components[6].size != 0 ? 0xe7 : 7;
    cpu.regs.gpr[x86::kRax] = 0x20000;
  }

  bool has_avx512() const { return xsave_layout.components[6].size != 0; }
  std::uint64_t& gpr(x86::Gpr index) { return cpu.regs.gpr[index]; }

  // A vector register's low sixteen bytes, all of one value.
  void fill_xmm(std::size_t index, std::uint8_t value) {
    std::fill_n(cpu.area.begin() + static_cast<std::ptrdiff_t>(160 + 16 * index), 16,
                static_cast<std::byte>(value));
    use(kFeatureSse);
  }
  void use(std::uint64_t features) {
    store_area<std::uint64_t>(kXsaveXstateBv, load_area<std::uint64_t>(kXsaveXstateBv) | features);
  }
  template <typename T>
  T xmm(std::size_t index, std::size_t element = 0) {
    return load_area<T>(160 + 16 * index + element * sizeof(T));
  }
  template <typename T>
  T ymm_high(std::size_t index, std::size_t element = 0) {
    return load_area<T>(xsave_layout.components[2].offset + 16 * index + element * sizeof(T));
  }

  std::optional<kvm::System> system_;
  std::optional<Sandbox> sandbox_;
};

TEST_F(SandboxTest, Popcnt_OfMemory) {
  put<std::uint64_t>(0x20000, 0xf0f0);
  cpu.regs.rflags = 2 | x86::kFlagIf | x86::kFlagCf | x86::kFlagZf;
  finishes({0xf3, 0x48, 0x0f, 0xb8, 0x08});
  EXPECT_EQ(gpr(x86::kRcx), 8U);
  EXPECT_EQ(cpu.regs.rflags, 2 | x86::kFlagIf);
  EXPECT_EQ(cpu.xsave_writes, 0);
}

TEST_F(SandboxTest, StackPointer_IsOrdinaryData) {
  gpr(x86::kRsp) = 0xffff;
  finishes({0xf3, 0x48, 0x0f, 0xb8, 0xe4});  // popcnt rsp, rsp
  EXPECT_EQ(gpr(x86::kRsp), 16U);
}

TEST_F(SandboxTest, EveryRegister_ComesThrough) {
  for (std::uint64_t i = 0; i < 16; ++i) cpu.regs.gpr[i] = 0x1111111111111111 * i + i;
  auto expected = cpu.regs.gpr;
  expected[x86::kRcx] = 0;
  finishes({0xf3, 0x0f, 0xb8, 0xc9});  // popcnt ecx, ecx
  cpu.regs.gpr[x86::kRcx] = 0;
  EXPECT_EQ(cpu.regs.gpr, expected);
}

TEST_F(SandboxTest, CompareExchange16_SwapsAndReports) {
  put<std::uint64_t>(0x20000, 1);
  put<std::uint64_t>(0x20008, 2);
  gpr(x86::kRbx) = 3;
  gpr(x86::kRcx) = 4;
  gpr(x86::kRdx) = 2;
  gpr(x86::kRsi) = 0x20000;
  gpr(x86::kRax) = 1;
  finishes({0xf0, 0x48, 0x0f, 0xc7, 0x0e});
  EXPECT_EQ(get<std::uint64_t>(0x20000), 3U);
  EXPECT_EQ(get<std::uint64_t>(0x20008), 4U);
  EXPECT_NE(cpu.regs.rflags & x86::kFlagZf, 0U);
  finishes({0xf0, 0x48, 0x0f, 0xc7, 0x0e});
  EXPECT_EQ(gpr(x86::kRax), 3U);
  EXPECT_EQ(gpr(x86::kRdx), 4U);
  EXPECT_EQ(cpu.regs.rflags & x86::kFlagZf, 0U);
}

TEST_F(SandboxTest, CompareExchange16_NeedsAlignment) {
  gpr(x86::kRax) = 0x20008;
  faults({0x48, 0x0f, 0xc7, 0x08}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(SandboxTest, LockedAdd_ReturnsWhatWasThere) {
  put<std::uint64_t>(0x20000, 40);
  gpr(x86::kRcx) = 2;
  finishes({0xf0, 0x48, 0x0f, 0xc1, 0x08});
  EXPECT_EQ(get<std::uint64_t>(0x20000), 42U);
  EXPECT_EQ(gpr(x86::kRcx), 40U);
}

TEST_F(SandboxTest, Pshufb_Shuffles) {
  for (std::uint8_t i = 0; i < 16; ++i) {
    store_area<std::uint8_t>(160U + i, static_cast<std::uint8_t>(0xa0 + i));
    put<std::uint8_t>(0x20000U + i, static_cast<std::uint8_t>(15 - i));
  }
  use(kFeatureSse);
  finishes({0x66, 0x0f, 0x38, 0x00, 0x00});
  EXPECT_EQ(xmm<std::uint8_t>(0, 0), 0xaf);
  EXPECT_EQ(xmm<std::uint8_t>(0, 15), 0xa0);
}

TEST_F(SandboxTest, Vpaddd_AddsAllOfYmm) {
  for (std::uint32_t i = 0; i < 8; ++i) put<std::uint32_t>(0x20000 + 4 * i, 100 + i);
  fill_xmm(1, 1);
  store_area<std::uint32_t>(xsave_layout.components[2].offset + 16, 7);
  use(kFeatureAvx);
  finishes({0xc5, 0xf5, 0xfe, 0x10});
  EXPECT_EQ(xmm<std::uint32_t>(2, 3), 0x01010101U + 103);
  EXPECT_EQ(ymm_high<std::uint32_t>(2, 0), 7U + 104);
  EXPECT_EQ(ymm_high<std::uint32_t>(2, 3), 107U);
}

TEST_F(SandboxTest, Avx_IsUndefinedWhenXcr0LacksIt) {
  cpu.xcr0_value = 3;
  faults({0xc5, 0xf5, 0xfe, 0x10}, x86::Vector::kInvalidOpcode);
}

TEST_F(SandboxTest, Zmm_RoundTrip) {
  if (!has_avx512()) GTEST_SKIP() << "the processor has no AVX-512";
  for (std::uint64_t i = 0; i < 8; ++i) put<std::uint64_t>(0x20000 + 8 * i, 0x1234567800000000 + i);
  finishes({0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x08});  // vmovdqa64 zmm1, [rax]
  gpr(x86::kRax) = 0x20ffc;
  finishes({0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x08});  // vmovdqu64 [rax], zmm1: crosses a page
  EXPECT_EQ(get<std::uint64_t>(0x20ffc), 0x1234567800000000U);
  EXPECT_EQ(get<std::uint64_t>(0x20ffc + 56), 0x1234567800000007U);
}

TEST_F(SandboxTest, MaskedStore_LeavesOtherLanesAlone) {
  if (!has_avx512()) GTEST_SKIP() << "the processor has no AVX-512";
  for (std::uint32_t i = 0; i < 16; ++i) put<std::uint32_t>(0x20fe0 + 4 * i, 0x5a5a5a5a);
  map(0x21, 0);  // lanes 8 and up: not selected, no fault
  store_area<std::uint64_t>(xsave_layout.components[5].offset + 8, 0x05);
  use(kFeatureAvx512);
  fill_xmm(1, 0x11);
  gpr(x86::kRax) = 0x20fe0;
  finishes({0x62, 0xf1, 0x7e, 0x49, 0x7f, 0x08});  // vmovdqu32 [rax]{k1}, zmm1
  EXPECT_EQ(get<std::uint32_t>(0x20fe0), 0x11111111U);
  EXPECT_EQ(get<std::uint32_t>(0x20fe4), 0x5a5a5a5aU);
  EXPECT_EQ(get<std::uint32_t>(0x20fe8), 0x11111111U);
}

TEST_F(SandboxTest, VexMaskedStore_TouchesOnlySelectedMmio) {
  fill_xmm(0, 0x77);
  store_area<std::uint32_t>(160 + 16 + 4, 0x80000000);  // lane 1 of xmm1
  gpr(x86::kRax) = kMmio;
  finishes({0xc4, 0xe2, 0x71, 0x2e, 0x00});  // vmaskmovps [rax], xmm1, xmm0
  EXPECT_EQ(bus.accesses, (std::vector<FakeBus::Access>{{true, kMmio + 4, 4, 0x77777777}}));
}

TEST_F(SandboxTest, Maskmovdqu_StoresAtRdi) {
  fill_xmm(0, 0x77);
  store_area<std::uint8_t>(160 + 16 + 3, 0x80);
  gpr(x86::kRdi) = 0x20000;
  finishes({0x66, 0x0f, 0xf7, 0xc1});
  EXPECT_EQ(get<std::uint64_t>(0x20000), 0x77000000U);
  EXPECT_EQ(gpr(x86::kRdi), 0x20000U);
}

TEST_F(SandboxTest, DivisionByZero_IsInjected) {
  faults({0xf7, 0xf1}, x86::Vector::kDivideError);
  gpr(x86::kRax) = 100;
  gpr(x86::kRcx) = 7;
  finishes({0xf7, 0xf1});  // and the sandbox goes on
  EXPECT_EQ(gpr(x86::kRax), 14U);
  EXPECT_EQ(gpr(x86::kRdx), 2U);
}

TEST_F(SandboxTest, MisalignedMovaps_IsInjected) {
  gpr(x86::kRax) = 0x20008;
  faults({0x0f, 0x28, 0x00}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(SandboxTest, UnmaskedSseException_IsInjectedWithItsFlag) {
  store_area<std::uint32_t>(24, 0x1d80);  // zero divide unmasked
  for (std::size_t i = 0; i < 4; ++i) store_area<std::uint32_t>(160 + 4 * i, 0x3f800000);
  use(kFeatureSse);
  faults({0x0f, 0x5e, 0xc1}, x86::Vector::kSimdError);
  EXPECT_EQ(load_area<std::uint32_t>(24), 0x1d84U);
  EXPECT_EQ(xmm<std::uint32_t>(0), 0x3f800000U);
  cpu.system.cr4 &= ~(1ULL << 10);
  faults({0x0f, 0x5e, 0xc1}, x86::Vector::kInvalidOpcode);
}

TEST_F(SandboxTest, SseException_Masked_SetsItsFlag) {
  for (std::size_t i = 0; i < 4; ++i) store_area<std::uint32_t>(160 + 4 * i, 0x3f800000);
  use(kFeatureSse);
  finishes({0x0f, 0x5e, 0xc1});
  EXPECT_EQ(load_area<std::uint32_t>(24), 0x1f84U);
  EXPECT_EQ(xmm<std::uint32_t>(0), 0x7f800000U);
}

TEST_F(SandboxTest, PendingX87Exception_IsInjectedByTheNextInstruction) {
  store_area<std::uint16_t>(0, 0x037b);
  store_area<std::uint16_t>(2, 0x8084);  // zero divide, ES, B
  use(kFeatureX87);
  faults({0xdc, 0x30}, x86::Vector::kX87Error);
}

TEST_F(SandboxTest, X87_LoadsComputesAndStores) {
  put<double>(0x20000, 10.0);
  put<double>(0x20008, 4.0);
  finishes({0xdd, 0x00});  // fld qword ptr [rax]
  gpr(x86::kRax) = 0x20008;
  finishes({0xdc, 0x30});  // fdiv qword ptr [rax]
  finishes({0xdd, 0x18});  // fstp qword ptr [rax]
  EXPECT_EQ(get<double>(0x20008), 2.5);
}

TEST_F(SandboxTest, AlignmentCheck_IsInjectedAtCpl3Only) {
  gpr(x86::kRax) = 0x20001;
  cpu.system.cr0 |= 1U << 18;
  cpu.regs.rflags |= x86::kFlagAc;
  finishes({0x48, 0x0f, 0x38, 0xf0, 0x08});  // movbe rcx, [rax]
  to_user_mode();
  faults({0x48, 0x0f, 0x38, 0xf0, 0x08}, x86::Vector::kAlignmentCheck, 0);
}

TEST_F(SandboxTest, Movbe_BothWays) {
  put<std::uint64_t>(0x20000, 0x1122334455667788);
  finishes({0x48, 0x0f, 0x38, 0xf0, 0x08});
  EXPECT_EQ(gpr(x86::kRcx), 0x8877665544332211U);
  finishes({0x0f, 0x38, 0xf1, 0x08});
  EXPECT_EQ(get<std::uint64_t>(0x20000), 0x1122334411223344U);
}

TEST_F(SandboxTest, SegmentAndIndex_AreResolvedHere) {
  cpu.system.fs.base = 0x1000;
  gpr(x86::kRcx) = 0x40;
  for (std::uint32_t i = 0; i < 4; ++i) put<std::uint32_t>(0x21110 + 4 * i, 50 + i);
  finishes({0x64, 0x0f, 0x28, 0x44, 0x88, 0x10});  // movaps xmm0, fs:[rax + rcx*4 + 0x10]
  EXPECT_EQ(xmm<std::uint32_t>(0, 3), 53U);
}

TEST_F(SandboxTest, ExtendedBaseAndIndex_DoNotReachTheSandbox) {
  gpr(x86::kR13) = 0x20000;
  gpr(x86::kR12) = 0x60;
  put<std::uint64_t>(0x20100, 0xff);
  finishes({0xf3, 0x4f, 0x0f, 0xb8, 0x4c, 0x65, 0x40});  // popcnt r9, [r13 + r12*2 + 0x40]
  EXPECT_EQ(gpr(x86::kR9), 8U);
  finishes({0xc4, 0x01, 0x2c, 0x58, 0x4c, 0x65, 0x40});  // vaddps ymm9, ymm10, [the same]
  EXPECT_EQ(xmm<std::uint32_t>(9, 0), 0xffU);
}

TEST_F(SandboxTest, ThirtyTwoBitCode_RunsAsItself) {
  to_32bit();
  put<std::uint32_t>(0x20000, 0xff);
  gpr(x86::kRax) = 0x20000;
  finishes({0xf3, 0x0f, 0xb8, 0x08});  // popcnt ecx, [eax]
  EXPECT_EQ(gpr(x86::kRcx), 8U);
  finishes({0x66, 0x0f, 0x38, 0x00, 0x00});  // pshufb xmm0, [eax]
}

TEST_F(SandboxTest, SixteenBitCode_FlipsTheOperandSize) {
  to_32bit();
  cpu.system.cs.default_big = false;
  put<std::uint32_t>(0x2000, 0x00ff00ff);
  gpr(x86::kRbx) = 0x2000;
  gpr(x86::kRcx) = 0xaaaaaaaa;
  finishes({0xf3, 0x0f, 0xb8, 0x0f});  // popcnt cx, [bx]
  EXPECT_EQ(gpr(x86::kRcx), 0xaaaa0008U);
  finishes({0x66, 0xf3, 0x0f, 0xb8, 0x0f});  // popcnt ecx, [bx]
  EXPECT_EQ(gpr(x86::kRcx), 16U);
}

TEST_F(SandboxTest, Rdrand_GivesSomething) {
  gpr(x86::kRcx) = 0;
  finishes({0x48, 0x0f, 0xc7, 0xf1});
  EXPECT_TRUE((cpu.regs.rflags & x86::kFlagCf) == 0 || gpr(x86::kRcx) != 0);
}

TEST_F(SandboxTest, MmioOperand_IsReadThroughTheBus) {
  gpr(x86::kRax) = kMmio;
  finishes({0x0f, 0x28, 0x00});  // movaps xmm0, [rax]
  EXPECT_EQ(bus.accesses.size(), 2U);
  EXPECT_EQ(xmm<std::uint64_t>(0, 0), 0x0706050403020100U);
  finishes({0x0f, 0x29, 0x00});
  EXPECT_EQ(bus.accesses.back(), (FakeBus::Access{true, kMmio + 8, 8, 0x0f0e0d0c0b0a0908}));
}

// The plain C++ of the fast paths against the processor, over random values.
class FastPathDifferential : public SandboxTest {
 protected:
  // Runs the instruction both ways from the same state; `flags` are those that are defined.
  void compare(const std::vector<std::uint8_t>& bytes, std::uint64_t flags) {
    const x86::Registers before = cpu.regs;
    const x86::XsaveArea area_before = cpu.area;
    std::array<std::byte, 32> memory_before{};
    ASSERT_TRUE(memory.read(Gpa(0x20000), memory_before));
    fast_paths = true;
    finishes(bytes);
    const x86::Registers fast = cpu.regs;
    const x86::XsaveArea area_fast = cpu.area;
    std::array<std::byte, 32> memory_fast{};
    ASSERT_TRUE(memory.read(Gpa(0x20000), memory_fast));

    cpu.regs = before;
    cpu.area = area_before;
    ASSERT_TRUE(memory.write(Gpa(0x20000), memory_before));
    fast_paths = false;
    finishes(bytes);
    std::array<std::byte, 32> memory_native{};
    ASSERT_TRUE(memory.read(Gpa(0x20000), memory_native));
    EXPECT_EQ(fast.gpr, cpu.regs.gpr);
    EXPECT_EQ(fast.rflags & flags, cpu.regs.rflags & flags);
    EXPECT_EQ(memory_fast, memory_native);
    const auto registers = [](const x86::XsaveArea& area) {
      return std::vector<std::byte>(area.begin() + kXsaveXmm, area.begin() + kXsaveXmmEnd);
    };
    EXPECT_EQ(registers(area_fast), registers(cpu.area));
  }
  // Values with few bits set, many, none.
  std::uint64_t random() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    const std::uint64_t value = state_ ^ (state_ >> 29);
    return (state_ >> 60) == 0 ? 0 : value >> ((state_ >> 54) & 63);
  }
  std::uint64_t state_ = 1;
  static constexpr std::uint64_t kStatus = 0x8d5;
  static constexpr std::uint64_t kCfZf = 0x41;
};

TEST_F(FastPathDifferential, BitCounts) {
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t value = random();
    put(0x20000, value);
    gpr(x86::kRdx) = value;
    gpr(x86::kRcx) = random();
    gpr(x86::kRax) = 0x20000;
    cpu.regs.rflags = 2 | (random() & kStatus);
    compare({0xf3, 0x48, 0x0f, 0xb8, 0x08}, kStatus);  // popcnt rcx, [rax]
    compare({0x66, 0xf3, 0x0f, 0xb8, 0x08}, kStatus);  // popcnt cx, [rax]
    compare({0xf3, 0x0f, 0xbd, 0xca}, kCfZf);          // lzcnt ecx, edx
    compare({0x66, 0xf3, 0x0f, 0xbd, 0xca}, kCfZf);    // lzcnt cx, dx
    compare({0xf3, 0x48, 0x0f, 0xbc, 0xca}, kCfZf);    // tzcnt rcx, rdx
    compare({0x66, 0xf3, 0x0f, 0xbc, 0xca}, kCfZf);    // tzcnt cx, dx
  }
}

TEST_F(FastPathDifferential, Moves) {
  for (int i = 0; i < 50; ++i) {
    put(0x20000, random());
    put(0x20008, random());
    for (std::size_t n = 0; n < 16; ++n) fill_xmm(n, static_cast<std::uint8_t>(random()));
    gpr(x86::kRcx) = random();
    gpr(x86::kRax) = 0x20000;
    compare({0x48, 0x8b, 0x08}, kStatus);                    // mov rcx, [rax]
    compare({0x8b, 0x08}, kStatus);                          // mov ecx, [rax]
    compare({0x66, 0x8b, 0x48, 0x03}, kStatus);              // mov cx, [rax + 3]
    compare({0x8a, 0x68, 0x05}, kStatus);                    // mov ch, [rax + 5]
    compare({0x0f, 0xb6, 0x48, 0x04}, kStatus);              // movzx ecx, byte [rax + 4]
    compare({0x48, 0x0f, 0xb7, 0x48, 0x01}, kStatus);        // movzx rcx, word [rax + 1]
    compare({0x66, 0x44, 0x0f, 0x6e, 0x48, 0x03}, kStatus);  // movd xmm9, [rax + 3]
    compare({0x66, 0x48, 0x0f, 0x6e, 0x48, 0x05}, kStatus);  // movq xmm1, [rax + 5]
    compare({0xf3, 0x0f, 0x7e, 0x50, 0x01}, kStatus);        // movq xmm2, [rax + 1]
    compare({0x66, 0x0f, 0x6f, 0x18}, kStatus);              // movdqa xmm3, [rax]
    compare({0xf3, 0x44, 0x0f, 0x6f, 0x38}, kStatus);        // movdqu xmm15, [rax]
    compare({0x0f, 0x28, 0x20}, kStatus);                    // movaps xmm4, [rax]
    compare({0x0f, 0x10, 0x60, 0x08}, kStatus);              // movups xmm4, [rax + 8]
    compare({0x66, 0x0f, 0x7e, 0x68, 0x02}, kStatus);        // movd [rax + 2], xmm5
    compare({0x66, 0x0f, 0xd6, 0x70, 0x03}, kStatus);        // movq [rax + 3], xmm6
    compare({0x66, 0x0f, 0x7f, 0x38}, kStatus);              // movdqa [rax], xmm7
    compare({0x44, 0x0f, 0x11, 0x40, 0x07}, kStatus);        // movups [rax + 7], xmm8
  }
}

TEST_F(FastPathDifferential, AlignedMoves_FaultWhenTheyAreNot) {
  gpr(x86::kRax) = 0x20008;
  for (const bool fast : {true, false}) {
    fast_paths = fast;
    faults({0x66, 0x0f, 0x6f, 0x00}, x86::Vector::kGeneralProtection, 0);  // movdqa xmm0, [rax]
    faults({0x0f, 0x29, 0x00}, x86::Vector::kGeneralProtection, 0);        // movaps [rax], xmm0
  }
}

// A line of vector code, one instruction at a time and in one go.
TEST_F(FastPathDifferential, RunAhead) {
  const std::vector<std::vector<std::uint8_t>> line{
      {0x66, 0x0f, 0xef, 0xc1},        // pxor xmm0, xmm1
      {0x0f, 0xb6, 0x08},              // movzx ecx, byte [rax]
      {0x66, 0x0f, 0x6e, 0x14, 0x08},  // movd xmm2, [rax + rcx]
      {0x66, 0x0f, 0x62, 0xd1},        // punpckldq xmm2, xmm1
      {0x48, 0x83, 0xc0, 0x04},        // add rax, 4
      {0x66, 0x0f, 0xfe, 0xc2},        // paddd xmm0, xmm2
      {0x66, 0x0f, 0xfe, 0x08},        // paddd xmm1, [rax]: not aligned, #GP
  };
  std::vector<std::uint8_t> code;
  for (const auto& bytes : line) code.insert(code.end(), bytes.begin(), bytes.end());
  ASSERT_TRUE(memory.write(Gpa(kCode), std::as_bytes(std::span(code))));
  put<std::uint64_t>(0x20000, 0x8877665544332205);
  const auto go = [&](std::uint32_t most) {
    ahead = most;
    fast_paths = true;
    fill_xmm(0, 0x11);
    fill_xmm(1, 0x80);
    cpu.regs = {};
    cpu.regs.gpr[x86::kRax] = 0x20000;
    cpu.regs.rip = kCode;
    int calls = 0;
    for (; cpu.regs.rip != kCode + code.size() - 4 && calls < 10; ++calls) {
      const std::span<const std::uint8_t> rest =
          std::span<const std::uint8_t>(code).subspan(cpu.regs.rip - kCode);
      const Outcome outcome = complete({rest.begin(), rest.end()});
      EXPECT_TRUE(std::holds_alternative<Finished>(outcome)) << describe(outcome);
    }
    return calls;
  };
  EXPECT_EQ(go(0), 6);
  const x86::Registers registers = cpu.regs;
  const x86::XsaveArea area = cpu.area;
  EXPECT_EQ(go(128), 1);
  EXPECT_EQ(registers.gpr, cpu.regs.gpr);
  EXPECT_EQ(registers.rip, cpu.regs.rip);
  EXPECT_EQ(registers.rflags, cpu.regs.rflags);
  EXPECT_TRUE(std::equal(area.begin() + kXsaveXmm, area.begin() + kXsaveXmmEnd,
                         cpu.area.begin() + kXsaveXmm));
  EXPECT_EQ(xmm<std::uint32_t>(2), 0x00887766U);  // four bytes from the fifth on
}

TEST_F(FastPathDifferential, CompareExchange16) {
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t low = random();
    const std::uint64_t high = random();
    put(0x20000, low);
    put(0x20008, high);
    const bool match = (i & 1) != 0;
    gpr(x86::kRax) = match ? low : random();
    gpr(x86::kRdx) = match ? high : random();
    gpr(x86::kRbx) = random();
    gpr(x86::kRcx) = random();
    gpr(x86::kRsi) = 0x20000;
    cpu.regs.rflags = 2 | (random() & kStatus);
    compare({0x48, 0x0f, 0xc7, 0x0e}, kStatus);
    compare({0xf0, 0x48, 0x0f, 0xc7, 0x0e}, kStatus);
  }
}

}  // namespace
}  // namespace vmm::completion

// Every form of the instructions that are executed here, with random operands, beside the processor
// itself.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "native_cpu.h"
#include "tests/support/interpreter_guest.h"

namespace vmm::interpreter {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kAllStatus = kStatusFlags;
constexpr std::size_t kWindow = 512;  // bytes of memory that an instruction may touch
constexpr std::uint64_t kMiddle = 256;

// What an instruction leaves undefined (SDM volume 2).
struct Case {
  Bytes code;
  std::uint64_t undefined_flags = 0;
};

std::string text(const Bytes& code) {
  std::string out;
  for (const std::uint8_t byte : code) out += fmt::format("{:02x} ", byte);
  return out;
}

class InstructionsTest : public testing::Test, protected CoreGuest {
 protected:
  static constexpr int kTimes = 24;

  std::uint64_t random() {
    // Small numbers, signs and ends of ranges matter more than others.
    const std::uint64_t value = engine_();
    switch (engine_() % 6) {
      case 0:
        return value & 0xff;
      case 1:
        return std::uint64_t{0} - (value & 0xff);
      case 2:
        return std::uint64_t{1} << (value % 64);
      case 3:
        return (std::uint64_t{1} << (value % 64)) - 1;
      case 4:
        return 0;
      default:
        return value;
    }
  }

  // RBX is the address of memory; RSI, when it is an index, is small.
  void compare(const Case& c, bool small_rsi = false) {
    for (int i = 0; i < kTimes; ++i) {
      NativeState native;
      for (std::uint64_t& value : native.gpr) value = random();
      if (small_rsi) native.gpr[x86::kRsi] %= 8;
      native.gpr[x86::kRsp] = kStack;
      native.rflags = (engine_() & kAllStatus) | 2;
      std::array<std::byte, kWindow> window;
      for (std::byte& byte : window) byte = static_cast<std::byte>(random());

      std::copy(native.gpr.begin(), native.gpr.end(), cpu.file.begin());
      cpu.file[x86::kRbx] = kData + kMiddle;
      cpu.set_rflags(native.rflags);
      ASSERT_TRUE(memory.write(Gpa(kData), window));
      const Next next = step(c.code);
      if (next == Next::kStop) {
        // Divisions that the processor would refuse.
        ASSERT_TRUE(divides_) << text(c.code) << "is not executed";
        continue;
      }
      native.gpr[x86::kRbx] = reinterpret_cast<std::uintptr_t>(window.data()) + kMiddle;
      native_.run(c.code, native);

      std::array<std::byte, kWindow> after;
      ASSERT_TRUE(memory.read(Gpa(kData), after));
      ASSERT_EQ(after, window) << text(c.code);
      for (std::size_t r = 0; r < native.gpr.size(); ++r) {
        if (r == x86::kRsp || r == x86::kRbx) continue;
        ASSERT_EQ(cpu.file[r], native.gpr[r]) << text(c.code) << "register " << r;
      }
      const std::uint64_t looked_at = kAllStatus & ~c.undefined_flags;
      ASSERT_EQ(cpu.rflags() & looked_at, native.rflags & looked_at) << text(c.code);
    }
  }

  // The prefixes that make operands of 16, 32 and 64 bits.
  static Bytes sized(int width, const Bytes& code) {
    Bytes out;
    if (width == 16) out.push_back(0x66);
    if (width == 64) out.push_back(0x48);
    out.insert(out.end(), code.begin(), code.end());
    return out;
  }
  static Bytes with(const Bytes& code, const Bytes& more) {
    Bytes out = code;
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }

  // opcode + ModRM of each kind, for a register field `reg`.
  void each_form(const Bytes& opcode, std::uint8_t reg, std::uint64_t undefined,
                 const Bytes& tail = {}, bool wide = true, const Bytes& registers = {1, 6, 7}) {
    const auto modrm = [reg](std::uint8_t mod, std::uint8_t rm) {
      return static_cast<std::uint8_t>(mod << 6 | reg << 3 | rm);
    };
    for (const int width : wide ? std::vector<int>{16, 32, 64} : std::vector<int>{32}) {
      // Registers: RCX, RSI, RDI, or CL, AH, DH; then memory at RBX, with displacements and an
      // index.
      for (const std::uint8_t rm : registers) {
        compare({sized(width, with(with(opcode, {modrm(3, rm)}), tail)), undefined});
      }
      compare({sized(width, with(with(opcode, {modrm(0, 3)}), tail)), undefined});
      compare({sized(width, with(with(opcode, {modrm(1, 3), 0xf5}), tail)), undefined});
      compare({sized(width, with(with(opcode, {modrm(2, 3), 0x21, 0, 0, 0}), tail)), undefined});
      compare({sized(width, with(with(opcode, {modrm(1, 4), 0xf3, 0x10}), tail)), undefined},
              true);  // [rbx + rsi * 8 + 16]
    }
  }
  // Registers of bytes, with and without REX: AH and SPL are the same number.
  void each_byte_form(const Bytes& opcode, std::uint8_t reg, std::uint64_t undefined,
                      const Bytes& tail = {}) {
    each_form(opcode, reg, undefined, tail, false, {1, 4, 6});
    for (const std::uint8_t rm : Bytes{5, 6}) {
      const Bytes registers =
          with(with(opcode, {static_cast<std::uint8_t>(0xc0 | reg << 3 | rm)}), tail);
      compare({registers, undefined});
      compare({with({0x40}, registers), undefined});
      compare({with({0x45}, registers), undefined});  // R8 to R15
    }
  }

  NativeCpu native_;
  std::mt19937_64 engine_{20240229};
  bool divides_ = false;
};

constexpr std::uint64_t kShiftFlags = kFlagAf | kFlagOf;

TEST_F(InstructionsTest, ArithmeticAndLogicOfTwoOperands) {
  for (std::uint8_t op = 0; op < 8; ++op) {
    const auto code = static_cast<std::uint8_t>(op << 3);
    const std::uint64_t undefined = op == 1 || op == 4 || op == 6 ? kFlagAf : 0;
    for (const std::uint8_t reg : Bytes{0, 1, 2, 7}) {
      // BH is a part of the address.
      if (reg != 7) each_byte_form({code}, reg, undefined);
      each_form({static_cast<std::uint8_t>(code + 1)}, reg, undefined);
      if (reg != 7) each_byte_form({static_cast<std::uint8_t>(code + 2)}, reg, undefined);
      each_form({static_cast<std::uint8_t>(code + 3)}, reg, undefined);
    }
    each_byte_form({0x80}, op, undefined, {0x83});
    each_form({0x83}, op, undefined, {0xfe});
    compare({{static_cast<std::uint8_t>(code + 4), 0x7f}, undefined});
    compare({sized(64, {static_cast<std::uint8_t>(code + 5), 1, 2, 3, 0x84}), undefined});
    for (const int width : {32, 64}) {
      compare({sized(width, {0x81, static_cast<std::uint8_t>(0xc0 | op << 3 | 1), 1, 2, 3, 0x80}),
               undefined});
    }
  }
  for (const std::uint8_t reg : Bytes{0, 2, 6}) {
    each_byte_form({0x84}, reg, kFlagAf);
    each_form({0x85}, reg, kFlagAf);
  }
}

TEST_F(InstructionsTest, LockedOnesComputeTheSame) {
  for (std::uint8_t op = 0; op < 7; ++op) {
    const std::uint64_t undefined = op == 1 || op == 4 || op == 6 ? kFlagAf : 0;
    compare({{0xf0, static_cast<std::uint8_t>(op << 3), 0x13}, undefined});
    compare({{0xf0, static_cast<std::uint8_t>(op << 3 | 1), 0x53, 0x11}, undefined});
    compare({{0xf0, 0x48, static_cast<std::uint8_t>(op << 3 | 1), 0x53, 0x11}, undefined});
    compare({{0xf0, 0x83, static_cast<std::uint8_t>(op << 3 | 3), 0x85}, undefined});
  }
  for (const std::uint8_t one : Bytes{0xc0, 0xc1, 0xb0, 0xb1}) {
    compare({{0xf0, 0x0f, one, 0x13}, 0});
    compare({{0xf0, 0x48, 0x0f, one, 0x13}, 0});
  }
  for (const std::uint8_t bit : Bytes{0xab, 0xb3, 0xbb}) {
    compare({{0xf0, 0x48, 0x0f, bit, 0x33}, kFlagAf | kFlagSf | kFlagPf | kFlagOf}, true);
  }
  for (const std::uint8_t op : Bytes{5, 6, 7}) {
    compare({{0xf0, 0x48, 0x0f, 0xba, static_cast<std::uint8_t>(op << 3 | 3), 0x45},
             kFlagAf | kFlagSf | kFlagPf | kFlagOf});
  }
  for (const std::uint8_t op : Bytes{0, 1}) {
    compare({{0xf0, 0xff, static_cast<std::uint8_t>(op << 3 | 3)}, 0});
    compare({{0xf0, 0xfe, static_cast<std::uint8_t>(op << 3 | 3)}, 0});
  }
  for (const std::uint8_t op : Bytes{2, 3}) {
    compare({{0xf0, 0x48, 0xf7, static_cast<std::uint8_t>(op << 3 | 3)}, 0});
    compare({{0xf0, 0xf6, static_cast<std::uint8_t>(op << 3 | 3)}, 0});
  }
}

TEST_F(InstructionsTest, OneOperand) {
  for (const std::uint8_t op : Bytes{2, 3}) {
    each_byte_form({0xf6}, op, 0);
    each_form({0xf7}, op, 0);
  }
  for (const std::uint8_t op : Bytes{0, 1}) {
    each_byte_form({0xfe}, op, 0);
    each_form({0xff}, op, 0);
  }
  each_byte_form({0xf6}, 0, kFlagAf, {0x55});
}

TEST_F(InstructionsTest, Shifts) {
  for (std::uint8_t op = 0; op < 8; ++op) {
    for (const std::uint8_t count : Bytes{0, 1, 3, 8, 31, 33, 63}) {
      each_byte_form({0xc0}, op, kShiftFlags, {count});
      each_form({0xc1}, op, kShiftFlags, {count});
    }
    each_byte_form({0xd0}, op, kFlagAf);
    each_form({0xd1}, op, kFlagAf);
    each_byte_form({0xd2}, op, kShiftFlags);
    each_form({0xd3}, op, kShiftFlags);
  }
  for (const std::uint8_t op : Bytes{0xa4, 0xac}) {
    for (const int width : {32, 64}) {
      for (const std::uint8_t count : Bytes{0, 1, 5, 31}) {
        compare({sized(width, {0x0f, op, 0xd1, count}), kShiftFlags});
      }
      compare({sized(width, {0x0f, static_cast<std::uint8_t>(op + 1), 0xd7}), kShiftFlags});
    }
  }
}

TEST_F(InstructionsTest, BitsAndScans) {
  constexpr std::uint64_t kOnlyCarry = kFlagAf | kFlagSf | kFlagPf | kFlagOf;
  for (const std::uint8_t op : Bytes{0xa3, 0xab, 0xb3, 0xbb}) {
    for (const int width : {16, 32, 64}) {
      compare({sized(width, {0x0f, op, 0xd1}), kOnlyCarry});
      compare({sized(width, {0x0f, op, 0x33}), kOnlyCarry}, true);  // a bit of [rbx]
    }
  }
  // Bits far from their base, before and behind it.
  for (int i = 0; i < 200; ++i) {
    const auto distance = static_cast<std::int64_t>(engine_() % 1600) - 800;
    cpu.file[x86::kRbx] = kData + kMiddle;
    cpu.file[x86::kRsi] = static_cast<std::uint64_t>(distance);
    std::array<std::byte, kWindow> window{};
    ASSERT_TRUE(memory.write(Gpa(kData), window));
    ASSERT_EQ(step({0x48, 0x0f, 0xab, 0x33}), Next::kOn);
    NativeState native;
    native.gpr[x86::kRbx] = reinterpret_cast<std::uintptr_t>(window.data()) + kMiddle;
    native.gpr[x86::kRsi] = static_cast<std::uint64_t>(distance);
    native_.run(Bytes{0x48, 0x0f, 0xab, 0x33}, native);
    std::array<std::byte, kWindow> after;
    ASSERT_TRUE(memory.read(Gpa(kData), after));
    ASSERT_EQ(after, window) << distance;
  }
  for (const std::uint8_t op : Bytes{4, 5, 6, 7}) {
    each_form({0x0f, 0xba}, op, kOnlyCarry, {0x4b});
  }
  for (const std::uint8_t op : Bytes{0xbc, 0xbd}) {
    for (const int width : {32, 64}) {
      compare({sized(width, {0x0f, op, 0xd1}), kOnlyCarry | x86::kFlagCf});
      compare({sized(width, {0x0f, op, 0x13}), kOnlyCarry | x86::kFlagCf});
    }
    compare({{0xf3, 0x48, 0x0f, op, 0xd1}, kOnlyCarry});
    compare({{0xf3, 0x0f, op, 0x13}, kOnlyCarry});
  }
  compare({{0xf3, 0x48, 0x0f, 0xb8, 0xd1}, 0});
  compare({{0xf3, 0x0f, 0xb8, 0x13}, 0});
}

TEST_F(InstructionsTest, MultiplicationAndDivision) {
  constexpr std::uint64_t kUndefined = kFlagAf | x86::kFlagZf | kFlagSf | kFlagPf;
  for (const std::uint8_t op : Bytes{4, 5}) {
    each_byte_form({0xf6}, op, kUndefined);
    each_form({0xf7}, op, kUndefined);
  }
  for (const std::uint8_t reg : Bytes{1, 6}) each_form({0x0f, 0xaf}, reg, kUndefined);
  each_form({0x6b}, 2, kUndefined, {0x85});
  for (const int width : {32, 64}) {
    compare({sized(width, {0x69, 0xd1, 1, 0x80, 3, 0x80}), kUndefined});
    compare({sized(width, {0x69, 0x13, 1, 0x80, 3, 0x80}), kUndefined});
  }
  divides_ = true;
  for (const std::uint8_t op : Bytes{6, 7}) {
    each_byte_form({0xf6}, op, kAllStatus);
    each_form({0xf7}, op, kAllStatus);
  }
}

TEST_F(InstructionsTest, WhatDivisionRefuses_IsLeftToKvm) {
  const auto divide = [&](std::uint64_t rdx, std::uint64_t rax, std::uint64_t by, bool is_signed) {
    cpu.file[x86::kRdx] = rdx;
    cpu.file[x86::kRax] = rax;
    cpu.file[x86::kRcx] = by;
    return step(is_signed ? Bytes{0x48, 0xf7, 0xf9} : Bytes{0x48, 0xf7, 0xf1});
  };
  constexpr std::uint64_t kLeast = std::uint64_t{1} << 63;
  EXPECT_EQ(divide(0, 1, 0, false), Next::kStop);
  EXPECT_EQ(divide(5, 0, 5, false), Next::kStop);
  EXPECT_EQ(divide(4, 0, 5, false), Next::kOn);
  EXPECT_EQ(divide(~0ULL, kLeast, ~0ULL, true), Next::kStop);
  EXPECT_EQ(divide(kLeast, 0, ~0ULL, true), Next::kStop);
  EXPECT_EQ(divide(0, kLeast, 1, true), Next::kStop);
  EXPECT_EQ(divide(~0ULL, kLeast, 1, true), Next::kOn);
}

TEST_F(InstructionsTest, Moves) {
  for (const std::uint8_t reg : Bytes{0, 1, 5, 6}) {
    each_byte_form({0x88}, reg, 0);
    each_form({0x89}, reg, 0);
    each_byte_form({0x8a}, reg, 0);
    each_form({0x8b}, reg, 0);
    each_byte_form({0x86}, reg, 0);
    each_form({0x87}, reg, 0);
  }
  each_byte_form({0xc6}, 0, 0, {0x5a});
  for (const int width : {32, 64}) {
    compare({sized(width, {0xc7, 0xc1, 1, 2, 3, 0x84}), 0});
    compare({sized(width, {0xc7, 0x03, 1, 2, 3, 0x84}), 0});
  }
  compare({{0xb1, 0x85}, 0});
  compare({{0xb9, 1, 2, 3, 0x84}, 0});
  compare({{0x48, 0xb9, 1, 2, 3, 4, 5, 6, 7, 0x88}, 0});
  for (const std::uint8_t op : Bytes{0xb6, 0xb7, 0xbe, 0xbf}) {
    for (const std::uint8_t reg : Bytes{1, 6}) each_form({0x0f, op}, reg, 0, {}, true, {1, 5, 6});
  }
  compare({{0x48, 0x63, 0xd1}, 0});
  compare({{0x48, 0x63, 0x13}, 0});
  for (const std::uint8_t op : Bytes{0x98, 0x99}) {
    for (const int width : {16, 32, 64}) compare({sized(width, {op}), 0});
  }
  compare({{0x0f, 0xc9}, 0});
  compare({{0x48, 0x0f, 0xc9}, 0});
  compare({{0x49, 0x0f, 0xc9}, 0});
  compare({{0x0f, 0xc3, 0x13}, 0});  // movnti
}

TEST_F(InstructionsTest, ConditionsAndAddresses) {
  for (std::uint8_t condition = 0; condition < 16; ++condition) {
    each_byte_form({0x0f, static_cast<std::uint8_t>(0x90 | condition)}, 0, 0);
    each_form({0x0f, static_cast<std::uint8_t>(0x40 | condition)}, 1, 0);
  }
  for (const int width : {16, 32, 64}) {
    // Without RBX, which is another address there.
    compare({sized(width, {0x8d, 0x54, 0x71, 0x7f}), 0});           // [rcx + rsi * 2 + 127]
    compare({sized(width, {0x8d, 0x14, 0xf5, 1, 0, 0, 0x80}), 0});  // [rsi * 8 - 2^31 + 1]
    compare({sized(width, {0x8d, 0x94, 0x0f, 0, 0, 0, 0x80}), 0});  // [rdi + rcx - 2^31]
  }
  compare({{0x64, 0x48, 0x8d, 0x51, 0x10}, 0});  // FS: has no meaning for LEA
}

TEST_F(InstructionsTest, ExchangeWithAddition) {
  for (const std::uint8_t op : Bytes{0xc0, 0xc1, 0xb0, 0xb1}) {
    compare({{0x0f, op, 0xd1}, 0});
    compare({{0x0f, op, 0x13}, 0});
  }
  compare({{0x48, 0x0f, 0xc1, 0xd1}, 0});
  compare({{0x48, 0x0f, 0xb1, 0xd1}, 0});
  compare({{0x48, 0x0f, 0xc1, 0x13}, 0});
  // CMPXCHG that finds what it expects.
  for (int i = 0; i < 8; ++i) {
    cpu.file[x86::kRbx] = kData;
    cpu.file[x86::kRax] = engine_();
    cpu.file[x86::kRdx] = engine_();
    put(kData, cpu.file[x86::kRax]);
    ASSERT_EQ(step({0xf0, 0x48, 0x0f, 0xb1, 0x13}), Next::kOn);
    EXPECT_EQ(at<std::uint64_t>(kData), cpu.file[x86::kRdx]);
    EXPECT_NE(cpu.rflags() & x86::kFlagZf, 0U);
  }
}

TEST_F(InstructionsTest, CompareExchangeOf16Bytes) {
  cpu.file[x86::kRsi] = kData;
  put<std::uint64_t>(kData, 1);
  put<std::uint64_t>(kData + 8, 2);
  cpu.file[x86::kRax] = 1;
  cpu.file[x86::kRdx] = 2;
  cpu.file[x86::kRbx] = 3;
  cpu.file[x86::kRcx] = 4;
  const Bytes code{0xf0, 0x48, 0x0f, 0xc7, 0x0e};
  ASSERT_EQ(step(code), Next::kOn);
  EXPECT_NE(cpu.rflags() & x86::kFlagZf, 0U);
  EXPECT_EQ(at<std::uint64_t>(kData), 3U);
  EXPECT_EQ(at<std::uint64_t>(kData + 8), 4U);
  ASSERT_EQ(step(code), Next::kOn);
  EXPECT_EQ(cpu.rflags() & x86::kFlagZf, 0U);
  EXPECT_EQ(cpu.file[x86::kRax], 3U);
  EXPECT_EQ(cpu.file[x86::kRdx], 4U);
  cpu.file[x86::kRsi] = kData + 8;
  EXPECT_EQ(step(code), Next::kStop);
}

// RSI and RDI are addresses: compared as distances.
TEST_F(InstructionsTest, Strings) {
  const std::vector<Bytes> repeats{{}, {0xf3}, {0xf2}};
  for (const std::uint8_t op : Bytes{0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xa6, 0xa7}) {
    for (const Bytes& repeat : repeats) {
      // REPNE means nothing to instructions that compare nothing.
      if (repeat == Bytes{0xf2} && op < 0xae && op != 0xa6 && op != 0xa7) continue;
      for (const int width : {16, 32, 64}) {
        for (int i = 0; i < 40; ++i) {
          const bool backward = engine_() % 4 == 0;
          const std::uint64_t from = 160 + engine_() % 64, to = 160 + engine_() % 64;
          const std::uint64_t count = engine_() % 18;
          std::array<std::byte, kWindow> window;
          for (std::byte& byte : window) byte = static_cast<std::byte>(engine_() % 2);
          ASSERT_TRUE(memory.write(Gpa(kData), window));
          const Bytes code = with(repeat, sized(width, {op}));
          cpu.file[x86::kRsi] = kData + from;
          cpu.file[x86::kRdi] = kData + to;
          cpu.file[x86::kRcx] = count;
          cpu.file[x86::kRax] = engine_() % 2;
          NativeState native;
          const auto base = reinterpret_cast<std::uintptr_t>(window.data());
          native.gpr = {cpu.file[x86::kRax], count, 0, 0, 0, 0, base + from, base + to};
          native.rflags = 2 | (backward ? kFlagDf : 0);
          cpu.set_rflags(native.rflags);
          Next next = step(code);
          while (next == Next::kStop) {
            ASSERT_EQ(cpu.stop, Stop::kAgain);
            next = step(code);
          }
          native_.run(code, native);
          std::array<std::byte, kWindow> after;
          ASSERT_TRUE(memory.read(Gpa(kData), after));
          ASSERT_EQ(after, window) << text(code) << from << " to " << to << " count " << count;
          ASSERT_EQ(cpu.file[x86::kRsi] - kData, native.gpr[x86::kRsi] - base) << text(code);
          ASSERT_EQ(cpu.file[x86::kRdi] - kData, native.gpr[x86::kRdi] - base) << text(code);
          ASSERT_EQ(cpu.file[x86::kRcx], native.gpr[x86::kRcx]) << text(code);
          ASSERT_EQ(cpu.file[x86::kRax], native.gpr[x86::kRax]) << text(code);
          ASSERT_EQ(cpu.rflags() & kAllStatus, native.rflags & kAllStatus) << text(code);
        }
      }
    }
  }
}

TEST_F(InstructionsTest, WhatIsNotKnown_IsKvms) {
  for (const Bytes& code :
       {Bytes{0x0f, 0xef, 0xc1}, Bytes{0x66, 0x0f, 0xef, 0xc1}, Bytes{0xd9, 0xe8},
        Bytes{0x0f, 0x21, 0xc0}, Bytes{0x0f, 0x22, 0xd8}, Bytes{0x8e, 0xd8},
        Bytes{0x67, 0x8b, 0x03}, Bytes{0x0f, 0x01, 0x3b}, Bytes{0xcd, 0x80}, Bytes{0xcf},
        Bytes{0x66, 0x50}, Bytes{0xca, 0, 0}, Bytes{0x9b}}) {
    EXPECT_EQ(step(code), Next::kStop) << text(code);
    EXPECT_TRUE(cpu.stop == Stop::kKvm) << text(code);
    EXPECT_FALSE(cpu.keeps_translations) << text(code);
  }
}

}  // namespace
}  // namespace vmm::interpreter

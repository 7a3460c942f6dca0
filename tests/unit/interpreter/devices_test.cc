// Accesses to devices: what leaves the guest, and what comes of the answer.
#include <gtest/gtest.h>

#include "base/le.h"
#include "tests/support/interpreter_guest.h"

namespace vmm::interpreter {
namespace {

using Bytes = std::vector<std::uint8_t>;
using To = DeviceAccess::To;

class DevicesTest : public testing::Test, protected CoreGuest {
 protected:
  static constexpr std::uint64_t kRegister = 0x32008, kRegisterGpa = 0x4000'0008;

  DevicesTest() {
    map(0x32, 0x4000'0000 | kKernelPage);
    for (auto& reg : cpu.file) reg = 0x1111'2222'3333'4444;
    cpu.file[Cpu::kZero] = 0;
    cpu.file[x86::kRsp] = kStack;
    cpu.file[x86::kRbx] = kRegister;
    cpu.file[x86::kRdx] = 0x1234'5678'0000'03fd;
    cpu.set_rflags(2);
  }

  void leaves(const Bytes& code, To to, bool is_write, unsigned size, std::uint64_t address) {
    ASSERT_EQ(step(code), Next::kStop);
    ASSERT_TRUE(cpu.stop == Stop::kDevice);
    EXPECT_TRUE(cpu.access.to == to);
    EXPECT_EQ(cpu.access.is_write, is_write);
    EXPECT_EQ(cpu.access.size, size);
    EXPECT_EQ(cpu.access.address, address);
    EXPECT_TRUE(cpu.keeps_translations);
  }
  void reads(const Bytes& code, To to, unsigned size, std::uint64_t address, std::uint64_t answer) {
    leaves(code, to, false, size, address);
    store_le(std::span(cpu.access.data), answer);
    cpu.answered = true;
    EXPECT_EQ(block.insns[0].run(cpu, block.insns[0]), Next::kOn);
    EXPECT_FALSE(cpu.answered);
  }
  void writes(const Bytes& code, To to, unsigned size, std::uint64_t address, std::uint64_t value) {
    leaves(code, to, true, size, address);
    EXPECT_EQ(load_le(std::span(cpu.access.data).first(size)), value);
  }
  void is_kvms(const Bytes& code) {
    ASSERT_EQ(step(code), Next::kStop);
    EXPECT_TRUE(cpu.stop == Stop::kKvm);
  }
  std::uint64_t rax() const { return cpu.file[x86::kRax]; }
};

TEST_F(DevicesTest, PortsAreReadIntoAPartOfRax) {
  reads({0xe4, 0x60}, To::kPort, 1, 0x60, 0xab);
  EXPECT_EQ(rax(), 0x1111'2222'3333'44abU);
  reads({0x66, 0xed}, To::kPort, 2, 0x3fd, 0xabcd);
  EXPECT_EQ(rax(), 0x1111'2222'3333'abcdU);
  reads({0xed}, To::kPort, 4, 0x3fd, 0x8765'4321);
  EXPECT_EQ(rax(), 0x8765'4321U);
}

TEST_F(DevicesTest, PortsAreWritten) {
  writes({0xe6, 0xff}, To::kPort, 1, 0xff, 0x44);
  writes({0x66, 0xe7, 0x80}, To::kPort, 2, 0x80, 0x4444);
  writes({0xef}, To::kPort, 4, 0x3fd, 0x3333'4444);
}

TEST_F(DevicesTest, StringsOfPortsAreKvms) {
  is_kvms({0x6e});        // outsb
  is_kvms({0xf3, 0x6c});  // rep insb
}

TEST_F(DevicesTest, MemoryIsRead) {
  reads({0x8b, 0x03}, To::kMemory, 4, kRegisterGpa, 0xffff'fffe);  // mov (%rbx), %eax
  EXPECT_EQ(rax(), 0xffff'fffeU);
  reads({0x48, 0x0f, 0xbe, 0x03}, To::kMemory, 1, kRegisterGpa, 0x80);  // movsbq (%rbx), %rax
  EXPECT_EQ(rax(), 0xffff'ffff'ffff'ff80U);
  reads({0x0f, 0xb7, 0x43, 0x02}, To::kMemory, 2, kRegisterGpa + 2, 0x1234);  // movzwl
  EXPECT_EQ(rax(), 0x1234U);
  reads({0x48, 0x03, 0x03}, To::kMemory, 8, kRegisterGpa, 0x1'0000'0000);  // add (%rbx), %rax
  EXPECT_EQ(rax(), 0x1'0000'1234U);
  reads({0xf6, 0x03, 0x20}, To::kMemory, 1, kRegisterGpa, 0x20);  // testb $0x20, (%rbx)
  EXPECT_EQ(cpu.rflags() & x86::kFlagZf, 0U);
  reads({0x83, 0x3b, 0x05}, To::kMemory, 4, kRegisterGpa, 5);  // cmpl $5, (%rbx)
  EXPECT_NE(cpu.rflags() & x86::kFlagZf, 0U);
}

TEST_F(DevicesTest, MemoryIsWritten) {
  writes({0x89, 0x03}, To::kMemory, 4, kRegisterGpa, 0x3333'4444);  // mov %eax, (%rbx)
  writes({0x48, 0x89, 0x03}, To::kMemory, 8, kRegisterGpa, 0x1111'2222'3333'4444);
  writes({0xc6, 0x03, 0x7f}, To::kMemory, 1, kRegisterGpa, 0x7f);  // movb $0x7f, (%rbx)
  writes({0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff}, To::kMemory, 8, kRegisterGpa,
         0xffff'ffff'ffff'fffe);
}

// What reads and writes a register, has more than one operand in memory, or is in two pages.
TEST_F(DevicesTest, TheRestIsKvms) {
  is_kvms({0x83, 0x0b, 0x01});        // orl $1, (%rbx)
  is_kvms({0xf0, 0x83, 0x0b, 0x01});  // lock orl $1, (%rbx)
  is_kvms({0x87, 0x03});              // xchg %eax, (%rbx)
  is_kvms({0xff, 0x33});              // pushq (%rbx)
  is_kvms({0xff, 0x13});              // call *(%rbx)
  cpu.file[x86::kRbx] = 0x32ffe;
  is_kvms({0x8b, 0x03});
  is_kvms({0x89, 0x03});
}

// An answer is for who asked: memory that is RAM by then is read, and nothing is left over.
TEST_F(DevicesTest, FaultsComeFirst) {
  map(0x32, 0x4000'0000 | kEntryPresent);
  ASSERT_EQ(step({0x89, 0x03}), Next::kStop);
  EXPECT_TRUE(cpu.stop == Stop::kPageFault);
}

TEST_F(DevicesTest, MsrsOfDevicesAreReadAndWritten) {
  cpu.file[x86::kRcx] = 0xdead'beef'0000'080b;
  cpu.file[x86::kRdx] = 0xffff'ffff'0000'0007;
  writes({0x0f, 0x30}, To::kMsr, 8, 0x80b, 0x7'3333'4444);
  // It goes on when it has been accepted.
  cpu.answered = true;
  EXPECT_EQ(block.insns[0].run(cpu, block.insns[0]), Next::kOn);
  reads({0x0f, 0x32}, To::kMsr, 8, 0x80b, 0x1234'5678'9abc'def0);
  EXPECT_EQ(rax(), 0x9abc'def0U);
  EXPECT_EQ(cpu.file[x86::kRdx], 0x1234'5678U);
  cpu.file[x86::kRcx] = 0x10;
  is_kvms({0x0f, 0x30});
  EXPECT_TRUE(cpu.writes_msr);
  is_kvms({0x0f, 0x32});
}

TEST_F(DevicesTest, ExitsSayWhatIsAccessed) {
  writes({0x66, 0xef}, To::kPort, 2, 0x3fd, 0x4444);
  const VcpuExit out = as_exit(cpu.access);
  const auto& pio = std::get<PioExit>(out);
  EXPECT_EQ(pio.port, 0x3fd);
  EXPECT_EQ(pio.width, 2);
  EXPECT_EQ(pio.count, 1U);
  EXPECT_TRUE(pio.is_write);
  EXPECT_EQ(load_le(pio.data), 0x4444U);

  leaves({0x8b, 0x03}, To::kMemory, false, 4, kRegisterGpa);
  const VcpuExit load = as_exit(cpu.access);
  const auto& mmio = std::get<MmioExit>(load);
  EXPECT_EQ(mmio.address, Gpa(kRegisterGpa));
  EXPECT_FALSE(mmio.is_write);
  EXPECT_EQ(mmio.data.size(), 4U);
  EXPECT_EQ(mmio.data.data(), cpu.access.data.data());  // where the answer goes
}

}  // namespace
}  // namespace vmm::interpreter

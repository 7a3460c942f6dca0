// What the sandbox's memory holds: page tables, descriptors, exception stubs, and the code around
// the instruction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/x86/registers.h"

namespace vmm::completion::sandbox {

// The memory map, identity-mapped. CPL 3 may execute the code page, and read and write the block,
// the XSAVE area and the operand pages; the rest is the supervisor's.
inline constexpr std::uint32_t kPml4 = 0x1000;
inline constexpr std::uint32_t kPdpt = 0x2000;
inline constexpr std::uint32_t kPd = 0x3000;
inline constexpr std::uint32_t kPt = 0x4000;
inline constexpr std::uint32_t kGdt = 0x5000;
inline constexpr std::uint32_t kTss = 0x5100;
inline constexpr std::uint32_t kIdt = 0x6000;
inline constexpr std::uint32_t kStubs = 0x6800;
inline constexpr std::uint32_t kStackTop = 0x8000;
inline constexpr std::uint32_t kCode = 0x8000;
inline constexpr std::uint32_t kBlock = 0x9000;
inline constexpr std::uint32_t kXsaveArea = 0xa000;
inline constexpr std::uint32_t kXsaveAreaSize = 0x4000;
inline constexpr std::uint32_t kOperand = 0xe000;  // two pages
inline constexpr std::uint32_t kSize = 0x10000;

// What passes between the host and the code; at kBlock.
struct Block {
  std::array<std::uint64_t, 16> gpr{};  // indexed by x86::Gpr
  std::uint64_t rflags = 0;
  std::uint64_t entry = 0;       // kPlainEntry or kFpuEntry
  std::uint64_t xsave_mask = 0;  // EDX:EAX of XRSTOR and XSAVE
};

// Code: `kResume` jumps to Block::entry, which loads the registers, falls through the slot
// (instructions of the job, then NOPs), stores the registers and ends in an OUT to kDonePort whose
// successor is kResume.
inline constexpr std::uint32_t kDone = kCode;
inline constexpr std::uint32_t kResume = kCode + 2;  // OUT has two bytes
inline constexpr std::uint32_t kPlainEntry = kCode + 0x100;
inline constexpr std::uint32_t kFpuEntry = kCode + 0x400;
inline constexpr std::size_t kSlotSize = 240;

inline constexpr std::uint16_t kDonePort = 0x10;
inline constexpr std::uint16_t kExceptionPort = 0x40;  // + vector
inline constexpr unsigned kVectors = 32;

// Where the instruction goes in each of the two paths.
struct Slots {
  std::uint32_t plain = 0, fpu = 0;
};

// Fills kSize bytes.
Slots build(std::span<std::byte> memory);

// The vCPU ready to run from kResume: 64-bit code, CPL 3, IOPL 3. `current` is the vCPU's state, of
// which what is not set here is kept.
x86::SystemRegisters system_registers(const x86::SystemRegisters& current);
x86::Registers registers();

}  // namespace vmm::completion::sandbox

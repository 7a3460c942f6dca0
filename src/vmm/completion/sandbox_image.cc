#include "vmm/completion/sandbox_image.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "vmm/x86/flat_segment.h"

namespace vmm::completion::sandbox {
namespace {

constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kWritable = 2;
constexpr std::uint64_t kUser = 4;
constexpr std::uint32_t kPage = 0x1000;

// Selectors: null, kernel code, kernel data, user data, user code, TSS (two entries).
constexpr std::uint16_t kKernelCode = 0x08;
constexpr std::uint16_t kUserData = 0x18 | 3;
constexpr std::uint16_t kUserCode = 0x20 | 3;
constexpr std::uint16_t kTssSelector = 0x28;
constexpr std::uint16_t kGdtLimit = 0x37;

template <typename T>
void put(std::span<std::byte> memory, std::uint32_t at, T value) {
  std::memcpy(memory.data() + at, &value, sizeof value);
}

void put_page_tables(std::span<std::byte> memory) {
  constexpr std::uint64_t kTable = kPresent | kWritable | kUser;
  put<std::uint64_t>(memory, kPml4, kPdpt | kTable);
  put<std::uint64_t>(memory, kPdpt, kPd | kTable);
  put<std::uint64_t>(memory, kPd, kPt | kTable);
  // Page 0 stays unmapped.
  for (std::uint32_t page = kPage; page < kSize; page += kPage) {
    std::uint64_t rights = kPresent | kWritable;
    if (page == kCode) rights = kPresent | kUser;
    if (page >= kBlock) rights = kPresent | kWritable | kUser;
    put<std::uint64_t>(memory, kPt + page / kPage * 8, page | rights);
  }
}

void put_descriptors(std::span<std::byte> memory) {
  // SDM volume 3, 3.4.5 and 7.2.3.
  constexpr std::array<std::uint64_t, 5> kSegments{0, 0x00af9b000000ffff, 0x00cf93000000ffff,
                                                   0x00cff3000000ffff, 0x00affb000000ffff};
  for (std::uint32_t i = 0; i < kSegments.size(); ++i) put(memory, kGdt + 8 * i, kSegments[i]);
  constexpr std::uint64_t kBusyTss = 0x00008b0000000067;
  put(memory, kGdt + kTssSelector, kBusyTss | std::uint64_t{kTss & 0xffffff} << 16);
  put<std::uint64_t>(memory, kTss + 4, kStackTop);  // RSP0
  for (std::uint32_t vector = 0; vector < kVectors; ++vector) {
    const std::uint64_t stub = kStubs + 4 * vector;
    constexpr std::uint64_t kInterruptGate = 0x8eULL << 40;
    put<std::uint64_t>(
        memory, kIdt + 16 * vector,
        (stub & 0xffff) | std::uint64_t{kKernelCode} << 16 | kInterruptGate | (stub >> 16) << 48);
    // out imm8, al; hlt
    const std::array<std::uint8_t, 4> code{0xe6, static_cast<std::uint8_t>(kExceptionPort + vector),
                                           0xf4, 0x90};
    put(memory, static_cast<std::uint32_t>(stub), code);
  }
}

// Emits machine code at a growing address.
class Emitter {
 public:
  Emitter(std::span<std::byte> memory, std::uint32_t at) : memory_(memory), at_(at) {}

  std::uint32_t at() const noexcept { return at_; }
  Emitter& bytes(std::initializer_list<std::uint8_t> code) {
    for (const std::uint8_t byte : code) memory_[at_++] = static_cast<std::byte>(byte);
    return *this;
  }
  Emitter& number(std::uint32_t value) {
    put(memory_, at_, value);
    at_ += 4;
    return *this;
  }
  // mov r64, [address] and back.
  void load(std::uint8_t gpr, std::uint32_t address) { move(0x8b, gpr, address); }
  void store(std::uint8_t gpr, std::uint32_t address) { move(0x89, gpr, address); }

 private:
  void move(std::uint8_t opcode, std::uint8_t gpr, std::uint32_t address) {
    const auto rex = static_cast<std::uint8_t>(0x48 | (gpr >= 8 ? 4 : 0));
    bytes({rex, opcode, static_cast<std::uint8_t>((gpr & 7) << 3 | 4), 0x25}).number(address);
  }
  std::span<std::byte> memory_;
  std::uint32_t at_;
};

constexpr std::uint32_t kGprs = kBlock + offsetof(Block, gpr);
constexpr std::uint32_t kFlags = kBlock + offsetof(Block, rflags);
constexpr std::uint32_t kEntry = kBlock + offsetof(Block, entry);
constexpr std::uint32_t kMask = kBlock + offsetof(Block, xsave_mask);

// XRSTOR64 or XSAVE64 of the area.
void emit_fpu(Emitter& emit, std::uint8_t modrm) {
  emit.bytes({0x8b, 0x04, 0x25}).number(kMask);      // mov eax, [mask]
  emit.bytes({0x8b, 0x14, 0x25}).number(kMask + 4);  // mov edx, [mask + 4]
  emit.bytes({0x48, 0x0f, 0xae, modrm, 0x25}).number(kXsaveArea);
}

// One path around a slot, whose address is the answer.
std::uint32_t emit_path(std::span<std::byte> memory, std::uint32_t entry, bool fpu) {
  constexpr std::uint8_t kXrstor = 0x2c;
  constexpr std::uint8_t kXsave = 0x24;
  Emitter emit(memory, entry);
  if (fpu) emit_fpu(emit, kXrstor);
  emit.bytes({0x48, 0xc7, 0xc4}).number(kFlags);  // mov rsp, kFlags
  emit.bytes({0x9d});                             // popfq
  for (std::uint8_t gpr = 0; gpr < 16; ++gpr) emit.load(gpr, kGprs + 8U * gpr);
  const std::uint32_t slot = emit.at();
  for (std::size_t i = 0; i < kSlotSize; ++i) emit.bytes({0x90});
  emit.store(x86::kRsp, kGprs + 8 * x86::kRsp);
  emit.bytes({0x48, 0xc7, 0xc4}).number(kFlags + 8);  // mov rsp, kFlags + 8
  emit.bytes({0x9c});                                 // pushfq
  for (std::uint8_t gpr = 0; gpr < 16; ++gpr) {
    if (gpr != x86::kRsp) emit.store(gpr, kGprs + 8U * gpr);
  }
  if (fpu) emit_fpu(emit, kXsave);
  const std::uint32_t after_jump = emit.at() + 5;
  emit.bytes({0xe9}).number(kDone - after_jump);  // jmp kDone
  return slot;
}

}  // namespace

Slots build(std::span<std::byte> memory) {
  std::fill(memory.begin(), memory.end(), std::byte{0});
  put_page_tables(memory);
  put_descriptors(memory);
  Emitter(memory, kDone).bytes({0xe6, kDonePort});                    // out kDonePort, al
  Emitter(memory, kResume).bytes({0xff, 0x24, 0x25}).number(kEntry);  // jmp [kEntry]
  return {emit_path(memory, kPlainEntry, false), emit_path(memory, kFpuEntry, true)};
}

x86::SystemRegisters system_registers(const x86::SystemRegisters& current) {
  constexpr std::uint64_t kCr0Am = 1U << 18;
  constexpr std::uint64_t kCr4Osxmmexcpt = 1U << 10;
  x86::SystemRegisters s = current;
  s.cs = x86::flat_segment(kUserCode, 0xb, 3, true);
  s.ss = s.ds = s.es = s.fs = s.gs = x86::flat_segment(kUserData, 0x3, 3, false);
  s.tr = x86::Segment{};
  s.tr.base = kTss;
  s.tr.limit = 0x67;
  s.tr.selector = kTssSelector;
  s.tr.type = 0xb;
  s.tr.code_or_data = false;
  s.gdt = {kGdt, kGdtLimit};
  s.idt = {kIdt, kVectors * 16 - 1};
  s.cr0 =
      x86::kCr0Pe | x86::kCr0Mp | x86::kCr0Et | x86::kCr0Ne | x86::kCr0Wp | kCr0Am | x86::kCr0Pg;
  s.cr3 = kPml4;
  s.cr4 = x86::kCr4Pae | x86::kCr4Osfxsr | kCr4Osxmmexcpt | x86::kCr4Osxsave;
  s.efer = x86::kEferLme | x86::kEferLma;
  return s;
}

x86::Registers registers() {
  x86::Registers r;
  r.rip = kResume;
  r.rflags = 2 | x86::kFlagIopl;
  return r;
}

}  // namespace vmm::completion::sandbox

#include "vmm/syscall_fixup.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/le.h"
#include "memory/page_walk.h"
#include "vmm/x86/flat_segment.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/paging_context.h"

namespace vmm {

// SDM volume 3, figure 6-9: the error code lies at the new RSP.
struct SyscallFixup::Frame {
  Le64 error_code, rip, cs, rflags, rsp, ss;
};

namespace {

constexpr std::uint64_t kPageFaultGate = 14;
constexpr std::uint64_t kGateSize = 16;  // 64-bit mode
// The fetch bit says nothing: without NX and SMEP it is never set (SDM volume 3, 4.7). A CPU at CPL
// 3 that stands on LSTAR cannot have come there in another way.
constexpr std::uint64_t kFailedFetch = kFaultPresent | kFaultUser;

// A 64-bit interrupt gate (SDM volume 3, figure 6-8).
struct Gate {
  Le16 offset_low, selector, type, offset_middle;
  Le32 offset_high, reserved;

  std::uint64_t handler() const {
    return std::uint64_t{offset_low} | std::uint64_t{offset_middle} << 16 |
           std::uint64_t{offset_high} << 32;
  }
};

template <typename T>
bool read_supervisor(const GuestMemory& memory, const x86::SystemRegisters& system,
                     std::uint64_t from, T& value) {
  PagingContext context = x86::paging_context(system, 0);
  context.cpl = 0;
  context.implicit_supervisor = true;
  return static_cast<bool>(
      read_virtual(memory, context, Gva(from), std::as_writable_bytes(std::span(&value, 1))));
}

// What a handler may start with and we can do in its place: each is one comparison cheaper than two
// exits.
struct KnownStart {
  std::array<std::uint8_t, 4> bytes;
  std::uint8_t size;
  std::uint64_t clear_flags;
};
constexpr std::array<KnownStart, 3> kKnownStarts{{
    {{0x0f, 0x01, 0xca}, 3, x86::kFlagAc},  // clac
    {{0xf3, 0x0f, 0x1e, 0xfa}, 4, 0},       // endbr64
    {{0xfc}, 1, std::uint64_t{1} << 10},    // cld
}};

}  // namespace

Result<bool> SyscallFixup::on_msr_write(kvm::VcpuFd& cpu, std::uint32_t index,
                                        std::uint64_t value) {
  const std::array<kvm::Msr, 1> msr{{{index, value}}};
  if (auto set = cpu.set_msrs(msr); !set) {
    if (set.error().code() == ErrorCode::kUnsupported) return false;
    return tl::unexpected<Error>(std::move(set).error());
  }
  if (index == x86::kMsrStar) star_ = value;
  if (index == x86::kMsrSfmask) sfmask_ = value;
  if (index == x86::kMsrLstar) {
    lstar_ = value;
    VMM_TRY(refresh(cpu));
  }
  return true;
}

Result<void> SyscallFixup::arm(kvm::VcpuFd& cpu, std::uint64_t handler) {
  handler_ = handler;
  stepping_ = false;
  kvm::GuestDebug debug;
  if (handler != 0) debug.hardware_breakpoint = handler;
  return debug_.set_quirk(cpu, debug);
}

Result<void> SyscallFixup::refresh(kvm::VcpuFd& cpu) {
  if (lstar_ == 0) return {};
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  const std::uint64_t gate_offset = kPageFaultGate * kGateSize;
  Gate gate;
  if (!system.code_is_64bit() || system.idt.limit < gate_offset + kGateSize - 1 ||
      !read_supervisor(memory_, system, system.idt.base + gate_offset, gate)) {
    return {};  // between two states: the guest will be looked at again
  }
  if (gate.handler() == handler_ && !stepping_) return {};
  return arm(cpu, gate.handler());
}

Result<bool> SyscallFixup::is_failed_syscall(kvm::VcpuFd& cpu) const {
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  Frame frame;
  return handler_ != 0 && registers.rip == handler_ &&
         read_supervisor(memory_, system, registers.gpr[x86::kRsp], frame) &&
         is_failed_syscall(frame, system);
}

Result<void> SyscallFixup::resume(kvm::VcpuFd& cpu) {
  std::array<kvm::Msr, 3> msrs{{{x86::kMsrStar, 0}, {x86::kMsrLstar, 0}, {x86::kMsrSfmask, 0}}};
  if (VMM_TRY(cpu.read_msrs(msrs)) != msrs.size()) {
    return fail(ErrorCode::kUnsupported, "KVM does not know the MSRs of SYSCALL");
  }
  star_ = msrs[0].value;
  lstar_ = msrs[1].value;
  sfmask_ = msrs[2].value;
  VMM_TRY(arm(cpu, 0));
  return refresh(cpu);
}

bool SyscallFixup::is_failed_syscall(const Frame& frame, const x86::SystemRegisters& system) const {
  return (frame.error_code & kFailedFetch) == kFailedFetch && system.cr2 == lstar_ &&
         frame.rip == lstar_ && (frame.cs & 3) == 3;
}

Result<void> SyscallFixup::enter_kernel(kvm::VcpuFd& cpu, const Frame& frame,
                                        x86::Registers registers,
                                        x86::SystemRegisters system) const {
  // SYSCALL (SDM volume 2): RIP from LSTAR, RFLAGS masked by SFMASK with RF clear, CS and SS from
  // STAR[47:32], the stack stays the user's. RCX and R11 were set by the processor. Its R11 has the
  // interrupt flag set, since it runs all of CPL 3 with interrupts on; the fault frame's flags are
  // masked by SFMASK already. So a user that ran with interrupts off looks like any other.
  const std::uint64_t flags = (registers.gpr[x86::kR11] & ~x86::kFlagRf) | 2;
  registers.rip = lstar_;
  registers.gpr[x86::kRsp] = frame.rsp;
  registers.rflags = (flags & ~sfmask_) | 2;
  const auto selector = static_cast<std::uint16_t>((star_ >> 32) & 0xfffc);
  constexpr std::uint8_t kCodeReadAccessed = 0xb;
  constexpr std::uint8_t kDataWriteAccessed = 0x3;
  system.cs = x86::flat_segment(selector, kCodeReadAccessed, 0, true);
  system.ss =
      x86::flat_segment(static_cast<std::uint16_t>(selector + 8), kDataWriteAccessed, 0, false);
  VMM_TRY(cpu.set_system_registers(system));
  return cpu.set_registers(registers);
}

Result<void> SyscallFixup::step_over(kvm::VcpuFd& cpu, x86::Registers registers,
                                     const x86::SystemRegisters& system) {
  std::array<std::uint8_t, 4> code{};
  if (read_supervisor(memory_, system, registers.rip, code)) {
    for (const KnownStart& start : kKnownStarts) {
      if (!std::equal(code.begin(), code.begin() + start.size, start.bytes.begin())) continue;
      registers.rip += start.size;
      registers.rflags &= ~start.clear_flags;
      return cpu.set_registers(registers);
    }
  }
  stepping_ = true;
  return debug_.set_quirk(cpu, {.single_step = true});
}

Result<bool> SyscallFixup::on_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit, Past past) {
  if (stepping_) {
    VMM_TRY(arm(cpu, handler_));
    return true;
  }
  if (handler_ == 0 || exit.pc != handler_) return false;
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  Frame frame;
  if (read_supervisor(memory_, system, registers.gpr[x86::kRsp], frame) &&
      is_failed_syscall(frame, system)) {
    ++fixed_;
    VMM_TRY(enter_kernel(cpu, frame, registers, system));
  } else {
    ++passed_on_;
    if (past == Past::kStepOver) VMM_TRY(step_over(cpu, registers, system));
  }
  return true;
}

}  // namespace vmm

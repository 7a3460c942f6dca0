#include "vmm/doctor/probe_guest.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/le.h"
#include "base/size.h"
#include "vmm/doctor/probe_timer.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::doctor {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::uint64_t kRam = KiB(64);
constexpr std::uint64_t kPml4 = 0x1000, kPdpt = 0x2000, kPd = 0x3000, kPt = 0x4000;
constexpr std::uint64_t kPd32 = 0x5000;  // page directory of the 32-bit probe
constexpr std::uint64_t kGdt = 0x6000, kIdt = 0x6100, kTss = 0x6800;
constexpr std::uint64_t kGates = 0x7000;     // the handlers, kGateSize bytes each
constexpr std::uint64_t kStackTop = 0x9000;  // grows down from here over its own page
constexpr std::uint64_t kGateSize = 8;
constexpr std::uint32_t kVectors = 32;

// SYSCALL loads CS and SS from STAR[47:32] and the entry above it, SYSRET from STAR[63:48]: the
// order of the descriptors is dictated (SDM volume 3, 5.8.8).
constexpr std::uint16_t kKernelCs = 0x08, kKernelSs = 0x10, kUserSs = 0x18, kUserCs = 0x20,
                        kTr = 0x28;

constexpr std::uint64_t kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80;

x86::Segment segment(std::uint16_t selector, std::uint8_t type, bool long_mode) {
  x86::Segment s;
  s.limit = 0xffffffff;
  s.selector = selector;
  s.type = type;
  s.dpl = selector & 3;
  s.long_mode = long_mode;
  s.default_big = !long_mode;
  s.granularity = true;
  return s;
}

// Access byte and flags of the GDT entries above; bases are 0 and limits 4 GiB.
constexpr std::array<std::uint64_t, 5> kDescriptors{
    0,
    0x00af9b000000ffff,  // 64-bit code, DPL 0
    0x00cf93000000ffff,  // data, DPL 0
    0x00cff3000000ffff,  // data, DPL 3
    0x00affb000000ffff,  // 64-bit code, DPL 3
};

struct Gate {
  Le16 offset_low, selector;
  std::uint8_t ist = 0;
  std::uint8_t type = 0x8e;  // present, DPL 0, 64-bit interrupt gate
  Le16 offset_middle;
  Le32 offset_high, reserved;
};
static_assert(sizeof(Gate) == 16);

std::string exit_name(const VcpuExit& exit) { return std::string(kExitNames.at(exit.index())); }

}  // namespace

std::string ProbeOutcome::describe() const {
  switch (end) {
    case ProbeEnd::kDone:
      return fmt::format("it ended at CPL {}", cpl);
    case ProbeEnd::kException:
      return fmt::format("exception {} arrived instead", value);
    case ProbeEnd::kEmulationFailure:
      return "KVM could not emulate it";
    case ProbeEnd::kShutdown:
      return "the guest triple-faulted";
    case ProbeEnd::kDebug:
      return "a debug exit came";
    case ProbeEnd::kTimeout:
      return "the CPU was still busy with it at the deadline";
    case ProbeEnd::kOther:
      break;
  }
  return "an unexpected exit came: " + detail;
}

Result<ProbeGuest> ProbeGuest::create(const kvm::System& system) {
  const GpaRange range = *GpaRange::create(Gpa(0), kRam);
  std::vector<GuestRegion> regions;
  regions.push_back(VMM_TRY(GuestRegion::create(range, {})));
  GuestMemory memory = VMM_TRY(GuestMemory::create(std::move(regions)));
  kvm::VmFd vm = VMM_TRY(system.create_vm());
  VMM_TRY(vm.set_slot({.number = 0, .range = range, .hva = memory.regions()[0].hva()}));
  const kvm::Capabilities& has = system.capabilities();
  // Older Intel processors run real mode in a task of KVM's own, which needs three pages.
  if (has.set_tss_address) VMM_TRY(vm.set_tss_address(Gpa(0xfffbd000)));
  if (has.exit_on_emulation_failure) VMM_TRY(vm.enable_exit_on_emulation_failure());
  ProbeGuest guest(std::move(memory), std::move(vm), VMM_TRY(system.supported_cpuid()));
  VMM_TRY(guest.lay_out());
  return guest;
}

Result<void> ProbeGuest::lay_out() const {
  const auto put64 = [this](std::uint64_t at, std::uint64_t value) {
    return memory_.write(Gpa(at), value);
  };
  VMM_TRY(put64(kPml4, kPdpt | kPresent | kWritable | kUser));
  VMM_TRY(put64(kPdpt, kPd | kPresent | kWritable | kUser));
  VMM_TRY(put64(kPd, kPt | kPresent | kWritable | kUser));
  for (std::uint64_t page = 0; page < kRam; page += KiB(4)) {
    const std::uint64_t user = page == kUserCode ? kUser : 0;
    VMM_TRY(put64(kPt + page / KiB(4) * 8, page | kPresent | kWritable | user));
  }
  VMM_TRY(memory_.write(Gpa(kPd32), static_cast<std::uint32_t>(kLarge | kPresent | kWritable)));

  for (std::size_t i = 0; i < kDescriptors.size(); ++i) {
    VMM_TRY(put64(kGdt + 8 * i, kDescriptors[i]));
  }
  // The busy 64-bit TSS takes two entries; its RSP0 is the stack of every exception from CPL 3.
  VMM_TRY(put64(kGdt + kTr, 0x00008b0000000067 | kTss << 16));
  VMM_TRY(put64(kTss + 4, kStackTop));

  for (std::uint32_t vector = 0; vector < kVectors; ++vector) {
    const std::uint64_t handler = kGates + vector * kGateSize;
    const std::array<std::uint8_t, 5> code{
        0xb0, static_cast<std::uint8_t>(vector),  // mov al, vector
        0xe6, kExceptionPort,                     // out kExceptionPort, al
        0xf4,                                     // hlt
    };
    VMM_TRY(memory_.write(Gpa(handler), std::as_bytes(std::span(code))));
    Gate gate;
    gate.offset_low = static_cast<std::uint16_t>(handler);
    gate.selector = kKernelCs;
    VMM_TRY(memory_.write(Gpa(kIdt + vector * sizeof(Gate)), gate));
  }
  return {};
}

Result<void> ProbeGuest::set_up(const kvm::VcpuFd& vcpu, const ProbeProgram& program) const {
  const bool user = program.mode == ProbeMode::kLongUser;
  const bool is_long = program.mode != ProbeMode::kPagedProtected;
  VMM_TRY(vcpu.set_cpuid(cpuid_));
  VMM_TRY(memory_.fill(*GpaRange::create(Gpa(kScratch), KiB(4)), std::byte{0}));
  VMM_TRY(memory_.write(Gpa(user ? kUserCode : kKernelCode), std::as_bytes(program.code)));
  VMM_TRY(memory_.write(Gpa(kSyscallEntry), std::as_bytes(program.syscall_entry)));

  x86::SystemRegisters s = VMM_TRY(vcpu.system_registers());
  s.cs = segment(user ? kUserCs | 3 : kKernelCs, 0xb, is_long);
  s.ss = segment(user ? kUserSs | 3 : kKernelSs, 0x3, false);
  s.ds = s.es = s.fs = s.gs = s.ss;
  s.tr = segment(kTr, 0xb, false);  // busy TSS
  s.tr.base = kTss;
  s.tr.limit = 0x67;
  s.tr.code_or_data = s.tr.default_big = s.tr.granularity = false;
  s.gdt = {kGdt, kTr + 16 - 1};
  s.idt = {kIdt, kVectors * sizeof(Gate) - 1};
  s.cr0 = x86::kCr0Pg | x86::kCr0Pe | x86::kCr0Mp | x86::kCr0Et | x86::kCr0Ne | x86::kCr0Wp;
  s.cr3 = is_long ? kPml4 : kPd32;
  s.cr4 = x86::kCr4Osfxsr | (is_long ? x86::kCr4Pae : x86::kCr4Pse);
  s.efer = is_long ? x86::kEferLme | x86::kEferLma | x86::kEferSce : 0;
  VMM_TRY(vcpu.set_system_registers(s));

  x86::Registers r;
  r.rip = user ? kUserCode : kKernelCode;
  r.gpr[x86::kRcx] = program.ecx;
  r.gpr[x86::kRsp] = user ? kUserCode + KiB(4) : kStackTop;
  VMM_TRY(vcpu.set_registers(r));

  if (!program.syscall_entry.empty()) {
    const std::array<kvm::Msr, 3> msrs{{
        {x86::kMsrStar, std::uint64_t{kKernelSs | 3} << 48 | std::uint64_t{kKernelCs} << 32},
        {x86::kMsrLstar, kSyscallEntry},
        {x86::kMsrSfmask, x86::kFlagIf | x86::kFlagTf},
    }};
    VMM_TRY(vcpu.set_msrs(msrs));
  }
  if (program.watch_scratch) VMM_TRY(vcpu.set_guest_debug({.write_watchpoint = kScratch}));
  return {};
}

Result<ProbeOutcome> ProbeGuest::run_until_end(kvm::VcpuFd& vcpu,
                                               const ProbeProgram& program) const {
  const ProbeTimer timer = VMM_TRY(ProbeTimer::start(std::max(program.deadline, milliseconds(1))));
  VMM_TRY(vcpu.set_signal_mask(timer.run_mask()));
  // A busy host may leave the thread without a CPU for longer than the deadline; that is not the
  // guest's fault. Past twenty deadlines it no longer matters whose fault it is.
  const auto start = std::chrono::steady_clock::now();
  const auto last = start + 20 * program.deadline;
  const nanoseconds cpu_end = thread_cpu_time() + nanoseconds(program.deadline) * 3 / 4;
  ProbeOutcome outcome;
  for (;;) {
    VcpuExit exit = VMM_TRY(vcpu.run());
    if (const auto* const pio = std::get_if<PioExit>(&exit)) {
      if (pio->is_write && pio->port == kTickPort) {
        ++outcome.ticks;
        if (std::chrono::steady_clock::now() < last) continue;
        outcome.end = ProbeEnd::kTimeout;
      } else if (pio->is_write && pio->port == kDonePort) {
        outcome.end = ProbeEnd::kDone;
      } else if (pio->is_write && pio->port == kExceptionPort) {
        outcome.end = ProbeEnd::kException;
      }
      if (!pio->data.empty()) outcome.value = std::to_integer<std::uint8_t>(pio->data[0]);
    } else if (std::holds_alternative<InterruptedExit>(exit)) {
      timer.consume();
      if (thread_cpu_time() < cpu_end && std::chrono::steady_clock::now() < last) continue;
      outcome.end = ProbeEnd::kTimeout;
    } else if (std::holds_alternative<EmulationFailureExit>(exit)) {
      outcome.end = ProbeEnd::kEmulationFailure;
    } else if (std::holds_alternative<ShutdownExit>(exit)) {
      outcome.end = ProbeEnd::kShutdown;
    } else if (std::holds_alternative<DebugTrapExit>(exit)) {
      outcome.end = ProbeEnd::kDebug;
    }
    outcome.elapsed = std::chrono::steady_clock::now() - start;
    outcome.detail = exit_name(exit);
    break;
  }
  outcome.rip = VMM_TRY(vcpu.registers()).rip;
  outcome.cpl = VMM_TRY(vcpu.system_registers()).cs.selector & 3;
  return outcome;
}

Result<ProbeOutcome> ProbeGuest::run(const ProbeProgram& program) {
  if (program.code.size() > KiB(4) || program.syscall_entry.size() > KiB(4)) {
    return fail(ErrorCode::kBadConfig, "A probe program has at most 4096 bytes");
  }
  kvm::VcpuFd vcpu = VMM_TRY(vm_.create_vcpu(next_vcpu_++));
  VMM_TRY(set_up(vcpu, program));
  return run_until_end(vcpu, program);
}

}  // namespace vmm::doctor

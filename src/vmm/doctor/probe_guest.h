// A guest of a few bytes that answers one question about this host's KVM.
//
// It has 64 KiB of RAM, page tables that let CPL 3 into two pages, an IDT whose gates report their
// vector, and no devices: it speaks through port writes, which all end in the prober's hands.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/system.h"

namespace vmm::doctor {

// Ports and addresses that the probe programs are written against.
inline constexpr std::uint8_t kExceptionPort = 0xf0;    // a gate reports its vector here
inline constexpr std::uint8_t kDonePort = 0xf1;         // a program reports its end here
inline constexpr std::uint8_t kTickPort = 0xf2;         // ignored: for counting exits
inline constexpr std::uint32_t kKernelCode = 0x9000;    // supervisor page
inline constexpr std::uint32_t kUserCode = 0xa000;      // user page
inline constexpr std::uint32_t kScratch = 0xb000;       // supervisor page, zeroed for each program
inline constexpr std::uint32_t kSyscallEntry = 0xc000;  // LSTAR: supervisor page

enum class ProbeMode : std::uint8_t {
  kLongKernel,     // 64-bit at CPL 0
  kLongUser,       // 64-bit at CPL 3, IOPL 0; starts at kUserCode
  kPagedProtected  // 32-bit at CPL 0 under 4 MiB pages, EFER.LME clear
};

struct ProbeProgram {
  ProbeMode mode = ProbeMode::kLongKernel;
  std::span<const std::uint8_t> code{};           // at kKernelCode, or kUserCode for kLongUser
  std::span<const std::uint8_t> syscall_entry{};  // at kSyscallEntry
  std::uint32_t ecx = 0;                          // initial RCX: a loop count
  bool watch_scratch = false;                     // arm a write watchpoint on kScratch
  // Time that the program may compute for; more wall clock is given when the host was busy
  // elsewhere.
  std::chrono::milliseconds deadline{50};
};

enum class ProbeEnd : std::uint8_t {
  kDone,              // wrote to kDonePort
  kException,         // an exception of vector `value` arrived at CPL 0
  kEmulationFailure,  // KVM could not emulate the instruction at `rip`
  kShutdown,          // triple fault
  kDebug,             // a debug exit
  kTimeout,           // still running at its deadline
  kOther,             // an exit that no program asks for; `detail` says which
};

struct ProbeOutcome {
  ProbeEnd end = ProbeEnd::kOther;
  std::uint8_t value = 0;  // what was written to kDonePort, or the vector
  std::uint8_t cpl = 0;    // of the CPU when it ended
  std::uint64_t rip = 0;
  std::uint32_t ticks = 0;              // writes to kTickPort
  std::chrono::nanoseconds elapsed{0};  // wall clock from the first entry
  std::string detail;

  // "vector 14 arrived", "KVM could not emulate the instruction at 0x9000": for reasons in reports.
  std::string describe() const;
};

// Owner of the probe VM. Each program runs on a vCPU of its own, so that a program that ends badly
// leaves nothing behind for the next. Used by one thread, whose signal mask is changed and restored
// by run(): the deadline is a timer signal (SIGRTMIN + 2) that is blocked outside of KVM_RUN and
// needs no handler.
class ProbeGuest {
 public:
  static Result<ProbeGuest> create(const kvm::System& system);

  // Errors: host failures; whatever the guest does is an outcome.
  Result<ProbeOutcome> run(const ProbeProgram& program);

 private:
  ProbeGuest(GuestMemory memory, kvm::VmFd vm, std::vector<kvm::CpuidEntry> cpuid)
      : memory_(std::move(memory)), vm_(std::move(vm)), cpuid_(std::move(cpuid)) {}
  Result<void> lay_out() const;
  Result<void> set_up(const kvm::VcpuFd& vcpu, const ProbeProgram& program) const;
  Result<ProbeOutcome> run_until_end(kvm::VcpuFd& vcpu, const ProbeProgram& program) const;

  GuestMemory memory_;  // outlives the slot
  kvm::VmFd vm_;
  std::vector<kvm::CpuidEntry> cpuid_;
  std::uint32_t next_vcpu_ = 0;
};

}  // namespace vmm::doctor

// A Linux guest's system calls as lines, as strace(1) shows those of a process, but from outside:
//
//   vcpu0 syscall execve("/init", ["/init"], 0x7ffd6c41be90) rip 0x40b2f7
//   vcpu0 syscall write(1, "hello\n", 6) rip 0x44e0a4
//   vcpu0 syscall write = 6 rip 0x44e0a4
//
// Those of 64-bit code by SYSCALL (Linux: Documentation/x86/entry_64.rst). A return is told where
// the CPU is seen on its way back to the user.
//
// Threats: numbers, pointers and strings are the guest's. What is read is bounded for each
// argument, and what is printed of it is printable; what waits for a return is bounded.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "base/locked.h"
#include "devices/device.h"
#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm {

// For all CPUs of a machine; any of their threads.
class SyscallTrace {
 public:
  // `memory` is borrowed; `sink` is called with one line at a time, by several threads.
  SyscallTrace(const GuestMemory& memory, std::function<void(const std::string&)> sink)
      : memory_(memory), sink_(std::move(sink)) {}

  // The CPU stands at the kernel's first instruction: RCX and R11 are SYSCALL's, all other
  // registers the user's.
  void entered(VcpuId cpu, const x86::Registers& registers, const x86::SystemRegisters& system);
  // The CPU is about to execute a user's code.
  void returning(VcpuId cpu, const x86::Registers& registers, const x86::SystemRegisters& system);

 private:
  // A thread of the guest, by what it has for itself while it is in a system call.
  struct Caller {
    std::uint64_t space = 0;  // its page tables
    std::uint64_t rsp = 0;
    std::uint64_t rip = 0;
    auto operator<=>(const Caller&) const = default;
  };
  static constexpr std::size_t kMostWaiting = 4096;

  const GuestMemory& memory_;
  const std::function<void(const std::string&)> sink_;
  Locked<std::map<Caller, std::uint64_t>> waiting_;  // the numbers of what they have called
};

}  // namespace vmm

// The questions that are put to this host's KVM, each with a guest of a few instructions.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "vmm/doctor/probe_guest.h"

namespace vmm::doctor {

// The answer to a yes-or-no question: `works`, and half a sentence on what was seen.
struct Finding {
  bool works = false;
  std::string seen;
};

// Each runs one program on a fresh vCPU of `guest`, within the deadline of that program. Errors:
// host failures.

// Nanoseconds that one instruction takes at CPL 0, from a loop of `instructions` (at most 2^20; the
// best of up to three runs, because a host that is busy only ever makes it look slower).
Result<double> probe_kernel_speed(ProbeGuest& guest, std::uint32_t instructions);

// What a nanosecond figure of probe_kernel_speed() says: true when only an interpreter is that
// slow.
bool is_interpreted(double nanoseconds_per_instruction) noexcept;

// INT3 at CPL 0 is delivered through the IDT.
Result<Finding> probe_breakpoint(ProbeGuest& guest);
// POPCNT at CPL 0 executes.
Result<Finding> probe_popcnt(ProbeGuest& guest);
// SYSCALL at CPL 3 arrives at LSTAR with CPL 0.
Result<Finding> probe_syscall(ProbeGuest& guest);
// VMCALL (VMMCALL on AMD, as KVM rewrites it) at CPL 0 returns.
Result<Finding> probe_hypercall(ProbeGuest& guest);
// A write watchpoint of KVM_SET_GUEST_DEBUG stops the guest.
Result<Finding> probe_watchpoint(ProbeGuest& guest);
// 32-bit protected mode with paging and EFER.LME clear runs.
Result<Finding> probe_paging32(ProbeGuest& guest);
// Wall clock of one port write at CPL 0, out to this process and back, in nanoseconds.
Result<double> probe_pio_cost(ProbeGuest& guest, std::uint32_t exits);

}  // namespace vmm::doctor

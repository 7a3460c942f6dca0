// What this host's KVM gets wrong, and which named workarounds follow from it.
//
// Nothing is inferred from a vendor or a module name: each fact is seen in a tiny guest.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vmm {

namespace kvm {
class System;
}

// Names for --quirk and QuirkOverride.
inline constexpr std::string_view kQuirkCompleteInstructions = "complete-instructions";
inline constexpr std::string_view kQuirkSyscallFixup = "syscall-fixup";
inline constexpr std::string_view kQuirkHideHypercalls = "hide-hypercalls";
inline constexpr std::string_view kQuirkUnpackInitrd = "unpack-initrd";
inline constexpr std::string_view kQuirkInterpretKernel = "interpret-kernel";
inline constexpr std::array<std::string_view, 5> kQuirkNames{
    kQuirkCompleteInstructions, kQuirkSyscallFixup, kQuirkHideHypercalls, kQuirkUnpackInitrd,
    kQuirkInterpretKernel};

// Facts, each with half a sentence on what was seen. Default: an ordinary host.
struct HostQuirks {
  bool interpreted_kernel = false;  // CPL 0 is interpreted, about a thousand times slower
  bool syscall_broken = false;      // SYSCALL from CPL 3 does not arrive at CPL 0
  bool hypercall_broken = false;    // VMCALL never completes
  std::string interpreted_kernel_why{};
  std::string syscall_broken_why{};
  std::string hypercall_broken_why{};
};

// One workaround, whether it would be on for a kernel booted here, and why.
struct QuirkReport {
  std::string name;  // one of kQuirkNames
  bool on = false;
  std::string why;
};

// Runs the guests on the calling thread, whose signal mask is changed meanwhile (SIGRTMIN + 2 is
// blocked; see doctor/probe_timer.h). A few milliseconds on an ordinary host, about ten on a
// software KVM: for real kernels only. Errors: host failures.
Result<HostQuirks> probe_host_quirks(const kvm::System& system);

// The same, probed at most once in a process: they are facts about the host. Any thread.
Result<HostQuirks> host_quirks(const kvm::System& system);

// The workarounds that follow, in the order of kQuirkNames.
std::vector<QuirkReport> quirk_reports(const HostQuirks& quirks);

}  // namespace vmm

// The exit statuses of the command: one table, for scripts to rely on (docs/cli.md shows it).
//
// Even numbers, but for 1: the statuses of the debug-exit port are odd, (value << 1 | 1) & 0xff as
// test frameworks expect of isa-debug-exit, so that only the guest's value 0 looks like a host
// error.
#pragma once

#include <array>
#include <string_view>

#include "base/error.h"
#include "vmm/stop_reason.h"

namespace vmm::cli {

enum ExitCode : int {
  kExitOk = 0,                 // the guest powered off; the command did what was asked
  kExitHostError = 1,          // the host refused or lacks something
  kExitUsage = 2,              // bad command line, configuration file or configuration
  kExitNoKvm = 4,              // no usable /dev/kvm
  kExitBadKernel = 6,          // the kernel, initrd or image cannot be used
  kExitReset = 10,             // guest reset, with --no-reboot
  kExitResetLoop = 12,         // the guest reset again and again without printing anything
  kExitPanic = 14,             // guest panic
  kExitHalted = 16,            // all CPUs halted with interrupts off
  kExitTripleFault = 18,       // triple fault
  kExitEmulationFailure = 20,  // an instruction that could not be emulated
  kExitEntryFailure = 22,      // the processor refused the guest's state
  kExitInternalError = 24,     // KVM reported an internal error
  kExitTimeout = 26,           // --timeout passed
  kExitWatchdog = 28,          // the watchdog expired, with --watchdog action=stop
  kExitMemoryFault = 30,       // the host had no page for the guest's memory
  kExitInterrupted = 130,      // a signal, Ctrl-A x, or quit in the menu
};

struct ExitCodeText {
  ExitCode code;
  std::string_view meaning;
};

// Every status but those of the debug-exit port, in ascending order.
inline constexpr std::array<ExitCodeText, 17> kExitCodes{{
    {kExitOk, "the guest powered off"},
    {kExitHostError, "host error"},
    {kExitUsage, "bad usage or configuration"},
    {kExitNoKvm, "no usable /dev/kvm"},
    {kExitBadKernel, "the kernel or another boot file cannot be used"},
    {kExitReset, "the guest reset (with --no-reboot)"},
    {kExitResetLoop, "the guest reset over and over without printing anything"},
    {kExitPanic, "guest panic"},
    {kExitHalted, "every CPU is halted for good"},
    {kExitTripleFault, "triple fault"},
    {kExitEmulationFailure, "an instruction could not be emulated"},
    {kExitEntryFailure, "the processor refused the guest's state"},
    {kExitInternalError, "KVM reported an internal error"},
    {kExitTimeout, "the --timeout passed"},
    {kExitWatchdog, "the watchdog expired (with --watchdog action=stop)"},
    {kExitMemoryFault, "the host had no page for the guest's memory"},
    {kExitInterrupted, "interrupted: a signal, Ctrl-A x, or quit in the menu"},
}};

// How a guest's end shows.
int exit_code(const StopInfo& stop) noexcept;
// How a failure of the host shows.
ExitCode exit_code(const Error& error) noexcept;

}  // namespace vmm::cli

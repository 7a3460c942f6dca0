#include "vmm/doctor/quirks.h"

#include "vmm/doctor/host_probes.h"
#include "vmm/kvm/system.h"

namespace vmm {
namespace {

// Long enough to drown the cost of the exit at its end, short enough for an interpreter.
constexpr std::uint32_t kSpeedInstructions = 1000;

}  // namespace

Result<HostQuirks> probe_host_quirks(const kvm::System& system) {
  HostQuirks quirks;
  doctor::ProbeGuest guest =
      VMM_TRY(with_context(doctor::ProbeGuest::create(system), "Set up a probe guest"));

  const double speed = VMM_TRY(doctor::probe_kernel_speed(guest, kSpeedInstructions));
  quirks.interpreted_kernel = doctor::is_interpreted(speed);
  quirks.interpreted_kernel_why = fmt::format("{:.0f} ns an instruction at CPL 0", speed);

  const doctor::Finding syscall = VMM_TRY(doctor::probe_syscall(guest));
  quirks.syscall_broken = !syscall.works;
  quirks.syscall_broken_why = fmt::format("SYSCALL at CPL 3: {}", syscall.seen);

  const doctor::Finding hypercall = VMM_TRY(doctor::probe_hypercall(guest));
  quirks.hypercall_broken = !hypercall.works;
  quirks.hypercall_broken_why = fmt::format("VMCALL at CPL 0: {}", hypercall.seen);
  return quirks;
}

Result<HostQuirks> host_quirks(const kvm::System& system) {
  static const Result<HostQuirks> first = probe_host_quirks(system);
  // A failure may have been a passing one (descriptors, memory): only a success is final.
  return first ? first : probe_host_quirks(system);
}

std::vector<QuirkReport> quirk_reports(const HostQuirks& quirks) {
  return {
      // On everywhere, and so not worth a probe: an ordinary KVM, too, fails on unusual
      // instructions
      // that touch MMIO, and until one does, completion costs nothing.
      {std::string(kQuirkCompleteInstructions), true,
       quirks.interpreted_kernel ? "an interpreter of CPL 0 does not know every instruction"
                                 : "for the rare instruction on MMIO that KVM cannot emulate"},
      {std::string(kQuirkSyscallFixup), quirks.syscall_broken, quirks.syscall_broken_why},
      {std::string(kQuirkHideHypercalls), quirks.hypercall_broken, quirks.hypercall_broken_why},
      {std::string(kQuirkUnpackInitrd), quirks.interpreted_kernel, quirks.interpreted_kernel_why},
      {std::string(kQuirkInterpretKernel), quirks.interpreted_kernel,
       quirks.interpreted_kernel_why},
  };
}

}  // namespace vmm

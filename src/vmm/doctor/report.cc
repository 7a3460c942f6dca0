#include "vmm/doctor/report.h"

#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "vmm/doctor/host_probes.h"
#include "vmm/kvm/system.h"

namespace vmm {
namespace {

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool has_word(std::string_view text, const std::string& word) {
  std::istringstream words{std::string(text)};
  for (std::string next; words >> next;) {
    if (next == word) return true;
  }
  return false;
}

std::string kernel_release() {
  utsname name{};
  return ::uname(&name) == 0 ? name.release : "";
}

std::string slurp(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::string> kvm_modules() {
  std::vector<std::string> found;
  for (const char* const name : {"kvm", "kvm_intel", "kvm_amd", "kvm_pvm"}) {
    std::error_code ignored;
    if (std::filesystem::exists(std::string("/sys/module/") + name, ignored)) {
      found.emplace_back(name);
    }
  }
  return found;
}

std::vector<CapabilityReport> list_capabilities(const kvm::Capabilities& c) {
  return {
      {"KVM_CAP_NR_MEMSLOTS", c.memory_slots, "pieces of guest memory"},
      {"KVM_CAP_MAX_VCPUS", c.max_vcpus, "CPUs of one guest"},
      {"KVM_CAP_MAX_VCPU_ID", c.max_vcpu_id, "largest CPU number"},
      {"KVM_CAP_IMMEDIATE_EXIT", c.immediate_exit, "interrupting a guest without losing a signal"},
      {"KVM_CAP_IRQCHIP", c.irqchip, "interrupt controllers in KVM"},
      {"KVM_CAP_SPLIT_IRQCHIP", c.split_irqchip, "local APICs in KVM, the rest here"},
      {"KVM_CAP_PIT2", c.pit2, "interval timer in KVM"},
      {"KVM_CAP_IRQFD", c.irqfd, "interrupts from a file descriptor"},
      {"KVM_CAP_IOEVENTFD", c.ioeventfd, "doorbells without an exit to this process"},
      {"KVM_CAP_SIGNAL_MSI", c.signal_msi, "message-signalled interrupts"},
      {"KVM_CAP_X2APIC_API", c.x2apic_api, "more than 255 CPUs"},
      {"KVM_CAP_TSC_DEADLINE_TIMER", c.tsc_deadline_timer, "the guest's one-shot timer"},
      {"KVM_CAP_TSC_CONTROL", c.tsc_control, "a TSC of another speed than the host's"},
      {"KVM_CAP_ADJUST_CLOCK", c.adjust_clock, "setting the guest's clock"},
      {"KVM_CAP_EXIT_ON_EMULATION_FAILURE", c.exit_on_emulation_failure,
       "finishing what KVM cannot emulate"},
      {"KVM_CAP_X86_USER_SPACE_MSR", c.user_space_msr, "MSRs handled here"},
      {"KVM_CAP_X86_MSR_FILTER", c.msr_filter, "choosing which MSRs"},
      {"KVM_CAP_SET_GUEST_DEBUG", c.guest_debug, "breakpoints and single-stepping"},
      {"KVM_CAP_SYNC_REGS", c.sync_registers, "registers without a call"},
      {"KVM_CAP_XCRS", c.xcrs, "AVX and newer state"},
      {"KVM_CAP_READONLY_MEM", c.read_only_memory, "ROM"},
      {"KVM_CAP_DIRTY_LOG_RING", c.dirty_log_ring, "a ring of written pages"},
      {"KVM_CAP_X86_SMM", c.smm, "system management mode"},
      {"KVM_CAP_NESTED_STATE", c.nested, "guests of the guest"},
      {"KVM_CAP_PMU_CAPABILITY", c.pmu, "performance counters"},
  };
}

// One yes-or-no probe; a failure of the host is an answer, too.
void add_probe(DoctorReport& report, const char* name, const char* what,
               Result<doctor::Finding> f) {
  report.probes.push_back({name, what, f && f->works, f ? f->seen : f.error().message()});
}

Result<void> run_probes(const kvm::System& system, DoctorReport& report) {
  constexpr std::uint32_t kInstructions = 100'000;
  constexpr std::uint32_t kExits = 2'000;
  doctor::ProbeGuest guest = VMM_TRY(doctor::ProbeGuest::create(system));
  report.instruction_nanoseconds = VMM_TRY(doctor::probe_kernel_speed(guest, kInstructions));
  report.interpreted_kernel = doctor::is_interpreted(report.instruction_nanoseconds);
  report.pio_exit_nanoseconds = VMM_TRY(doctor::probe_pio_cost(guest, kExits));
  add_probe(report, "int3", "INT3 at CPL 0 is delivered", doctor::probe_breakpoint(guest));
  add_probe(report, "popcnt", "POPCNT at CPL 0 executes", doctor::probe_popcnt(guest));
  add_probe(report, "syscall", "SYSCALL at CPL 3 enters CPL 0", doctor::probe_syscall(guest));
  add_probe(report, "vmcall", "VMCALL at CPL 0 returns", doctor::probe_hypercall(guest));
  add_probe(report, "watchpoint", "A data watchpoint stops the guest",
            doctor::probe_watchpoint(guest));
  add_probe(report, "paging32", "32-bit paging runs", doctor::probe_paging32(guest));
  report.quirks = quirk_reports(VMM_TRY(host_quirks(system)));
  return {};
}

}  // namespace

HostCpu parse_cpuinfo(const std::string& text) {
  HostCpu cpu;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view key = trim(std::string_view(line).substr(0, colon));
    const std::string_view value = trim(std::string_view(line).substr(colon + 1));
    if (key == "vendor_id") cpu.vendor = value;
    if (key == "model name") cpu.model = value;
    if (key == "flags") {
      cpu.vmx = has_word(value, "vmx");
      cpu.svm = has_word(value, "svm");
      cpu.hypervisor = has_word(value, "hypervisor");
    }
  }
  return cpu;
}

DoctorReport examine_host(const std::string& device) {
  DoctorReport report;
  report.kernel = kernel_release();
  report.cpu = parse_cpuinfo(slurp("/proc/cpuinfo"));
  report.modules = kvm_modules();
  report.device = device;
  const auto system = kvm::System::open(device);
  if (!system) {
    report.problem = system.error().message();
    return report;
  }
  report.capabilities = list_capabilities(system->capabilities());
  if (const auto probed = run_probes(*system, report); !probed) {
    report.problem = probed.error().message();
    return report;
  }
  report.usable = true;
  return report;
}

}  // namespace vmm

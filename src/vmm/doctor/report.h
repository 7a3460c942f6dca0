// What this host offers to virtual machines, as plain data: for `vmm doctor` and for programs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/doctor/quirks.h"

namespace vmm {

struct HostCpu {
  std::string vendor;  // "GenuineIntel"
  std::string model;
  bool vmx = false;         // Intel's virtualization
  bool svm = false;         // AMD's
  bool hypervisor = false;  // this host is itself a guest
};

// One thing that KVM says of itself.
struct CapabilityReport {
  std::string name;    // KVM's own, "KVM_CAP_IRQCHIP"
  std::int64_t value;  // what KVM answered; 0 is no
  std::string use;     // what it is good for
};

// One thing that was tried with a guest.
struct ProbeReport {
  std::string name;  // "syscall"
  std::string what;  // "SYSCALL at CPL 3 enters CPL 0"
  bool works = false;
  std::string seen;
};

struct DoctorReport {
  std::string kernel;  // release of the running Linux
  HostCpu cpu;
  std::vector<std::string> modules;  // of kvm, kvm_intel, kvm_amd, kvm_pvm: those that are there
  std::string device;
  bool usable = false;  // guests can be made
  std::string problem;  // why not
  std::vector<CapabilityReport> capabilities;
  std::vector<ProbeReport> probes;
  bool interpreted_kernel = false;     // a software KVM: code at CPL 0 is interpreted
  double instruction_nanoseconds = 0;  // one instruction at CPL 0
  double pio_exit_nanoseconds = 0;     // one port write, out to this process and back
  std::vector<QuirkReport> quirks;     // as they would be for a kernel booted now
};

// Opens the device and runs some tiny guests, on the calling thread (see probe_host_quirks() for
// its signal mask), for a fraction of a second. What fails is in the report.
DoctorReport examine_host(const std::string& device = "/dev/kvm");

// From the text of /proc/cpuinfo: the first processor of it.
HostCpu parse_cpuinfo(const std::string& text);

}  // namespace vmm

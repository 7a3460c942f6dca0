#include "cli/doctor_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/join.h"
#include "cli/exit_code.h"

namespace vmm::cli {
namespace {

std::string_view yes_no(bool yes) { return yes ? "yes" : "no"; }

std::string host_text(const DoctorReport& report) {
  const HostCpu& cpu = report.cpu;
  std::string hardware = cpu.vmx ? "VT-x" : cpu.svm ? "AMD-V" : "none";
  std::string text = "Host\n";
  text += fmt::format("  Linux           {}\n", report.kernel);
  text += fmt::format("  processor       {} ({})\n", cpu.model, cpu.vendor);
  text += fmt::format("  virtualization  {}{}\n", hardware,
                      cpu.hypervisor ? ", this host is itself a virtual machine" : "");
  text += fmt::format("  modules         {}\n", report.modules.empty()
                                                    ? "none (or built into the kernel)"
                                                    : join(report.modules, ", "));
  text += fmt::format("  {:<15} {}\n", report.device,
                      report.usable ? "usable" : "NOT USABLE: " + report.problem);
  return text;
}

std::string kind_text(const DoctorReport& report) {
  if (report.instruction_nanoseconds == 0) return "";
  std::string text = "\nSpeed\n";
  text += fmt::format("  one instruction at CPL 0  {:.1f} ns{}\n", report.instruction_nanoseconds,
                      report.interpreted_kernel
                          ? ": interpreted, this is a software KVM and kernels are slow"
                          : ": native");
  text +=
      fmt::format("  one port write            {:.1f} us\n", report.pio_exit_nanoseconds / 1000);
  return text;
}

}  // namespace

std::string doctor_text(const DoctorReport& report) {
  std::string text = host_text(report) + kind_text(report);
  if (!report.capabilities.empty()) text += "\nKVM offers\n";
  for (const CapabilityReport& c : report.capabilities) {
    text += fmt::format("  {:<35} {:<6} {}\n", c.name,
                        c.value == 0   ? "-"
                        : c.value == 1 ? "yes"
                                       : std::to_string(c.value),
                        c.use);
  }
  if (!report.probes.empty()) text += "\nTried with a guest\n";
  for (const ProbeReport& p : report.probes) {
    text += fmt::format("  {:<35} {:<6} {}\n", p.what, yes_no(p.works), p.seen);
  }
  if (!report.quirks.empty()) text += "\nQuirks for a kernel booted here (--quirk NAME=on|off)\n";
  for (const QuirkReport& q : report.quirks) {
    text += fmt::format("  {:<35} {:<6} {}\n", q.name, q.on ? "on" : "off", q.why);
  }
  return text;
}

std::string doctor_json(const DoctorReport& report) {
  using nlohmann::json;
  json document;
  document["kernel"] = report.kernel;
  document["cpu"] = {{"vendor", report.cpu.vendor},
                     {"model", report.cpu.model},
                     {"vmx", report.cpu.vmx},
                     {"svm", report.cpu.svm},
                     {"hypervisor", report.cpu.hypervisor}};
  document["modules"] = report.modules;
  document["device"] = report.device;
  document["usable"] = report.usable;
  document["problem"] = report.problem.empty() ? json(nullptr) : json(report.problem);
  document["software_kvm"] = report.interpreted_kernel;
  document["instruction_ns"] = report.instruction_nanoseconds;
  document["pio_exit_ns"] = report.pio_exit_nanoseconds;
  document["capabilities"] = json::object();
  for (const CapabilityReport& c : report.capabilities) document["capabilities"][c.name] = c.value;
  document["probes"] = json::array();
  for (const ProbeReport& p : report.probes) {
    document["probes"].push_back(
        {{"name", p.name}, {"what", p.what}, {"works", p.works}, {"seen", p.seen}});
  }
  document["quirks"] = json::array();
  for (const QuirkReport& q : report.quirks) {
    document["quirks"].push_back({{"name", q.name}, {"on", q.on}, {"why", q.why}});
  }
  // Names from the host may hold anything: replaced, never thrown over.
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

int doctor_command(const DoctorCommand& command) {
  const DoctorReport report = examine_host();
  const std::string text = command.json ? doctor_json(report) : doctor_text(report);
  std::fputs(text.c_str(), stdout);
  return report.usable ? kExitOk : kExitNoKvm;
}

}  // namespace vmm::cli

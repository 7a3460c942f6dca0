// What a guest was at when a test failed, as files: what one would otherwise have to reproduce.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "vmm/vm.h"

namespace vmm::testing {

// General registers, where each CPU is, and its callers by frame pointers. Lines.
inline std::string registers_text(const Vm& vm) {
  std::string text;
  for (std::uint32_t cpu = 0; cpu < vm.stats().cpus.size(); ++cpu) {
    const auto registers = vm.registers(VcpuId{cpu});
    const auto system = vm.system_registers(VcpuId{cpu});
    if (!registers || !system) {
      text += fmt::format("CPU {}: {}\n", cpu,
                          (registers ? system.error() : registers.error()).message());
      continue;
    }
    constexpr std::array<std::string_view, 16> kNames{"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                      "r12", "r13", "r14", "r15"};
    text += fmt::format(
        "CPU {}: cs:rip {:04x}:{:016x} rflags {:08x} cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer "
        "{:x}\n",
        cpu, system->cs.selector, registers->rip, registers->rflags, system->cr0, system->cr2,
        system->cr3, system->cr4, system->efer);
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      text += fmt::format("  {:3} {:016x}{}", kNames[i], registers->gpr[i], i % 4 == 3 ? "\n" : "");
    }
  }
  return text;
}

// Where each CPU is and was called from. Lines.
inline std::string backtrace_text(const Vm& vm) {
  const auto stacks = vm.sample_stacks();
  if (!stacks) return stacks.error().message() + "\n";
  std::string text;
  for (const StackSample& stack : *stacks) {
    text += fmt::format("CPU {}:", static_cast<std::uint32_t>(stack.vcpu));
    for (const std::uint64_t frame : stack.frames) text += fmt::format(" {:#x}", frame);
    text += "\n";
  }
  return text;
}

// The flight recorder's exits, the newest one last. Lines.
inline std::string exits_text(const Vm& vm) {
  std::string text;
  std::uint32_t cpu = 0;
  for (const auto& exits : vm.last_exits()) {
    for (const ExitRecord& exit : exits) {
      text += fmt::format("CPU {} #{} rip {:#x} {}", cpu, exit.number, exit.rip, exit.name());
      if (exit.is_access()) {
        text += fmt::format(" {} {:#x} {} bytes {:#x}", exit.is_write ? "write" : "read",
                            exit.address, exit.width, exit.value);
      }
      text += "\n";
    }
    ++cpu;
  }
  return text;
}

// Writes console.txt, registers.txt, backtrace.txt, exits.txt, guest.core and gdb.sh, which opens
// the core file, into a directory that is made; `symbols` is the guest's ELF file, or empty. While
// no run() is active. What could not be written, in words; empty when all is there.
inline std::string write_failure_bundle(Vm& vm, const std::string& directory,
                                        std::string_view console, const std::string& symbols = {}) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fmt::format("{}: {}", directory, error.message());
  std::string missing;
  const auto write = [&](const char* name, std::string_view text) {
    std::ofstream file(directory + "/" + name, std::ios::binary | std::ios::trunc);
    file << text << std::flush;
    if (!file) missing += fmt::format("{} could not be written. ", name);
  };
  write("console.txt", console);
  write("registers.txt", registers_text(vm));
  write("backtrace.txt", backtrace_text(vm));
  write("exits.txt", exits_text(vm));
  const std::string core = directory + "/guest.core";
  if (const auto written = vm.write_core(core); !written) missing += written.error().message();
  write("gdb.sh", fmt::format("#!/bin/sh\nexec gdb {} -ex 'core-file {}'\n", symbols,
                              std::filesystem::absolute(core, error).string()));
  return missing;
}

}  // namespace vmm::testing

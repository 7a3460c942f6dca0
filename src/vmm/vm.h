// A virtual machine that a program can hold in its hand.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/config.h"
#include "vmm/stop_reason.h"
#include "vmm/vm_status.h"
#include "vmm/x86/registers.h"

namespace vmm {

struct RunOptions {
  // How long to run at most; without one the guest decides.
  std::optional<std::chrono::nanoseconds> deadline = {};
  // Called once, on the caller's thread, when the CPUs have been told to run: for what can be done
  // beside the guest's first instructions. It must not call run().
  std::function<void()> on_started = {};
};

// Counted since creation. A snapshot of relaxed counters: sums may be a few events apart.
struct VmStats {
  std::map<std::string, std::uint64_t> exits;  // by kind: "pio", "mmio", "hlt", ...
  std::uint64_t unclaimed = 0;                 // accesses that no device answered
  std::uint64_t completed_instructions = 0;    // finished by instruction completion
  std::map<std::string, std::uint64_t> completed_by_mnemonic;
  std::uint64_t executed_ahead = 0;  // instructions executed together with a completed one
  std::uint64_t kicks = 0;
  std::uint64_t held_ticks = 0;  // timer interrupts held back (VmConfig::tick_share)
};

// Owner of everything that belongs to one guest. All functions are safe from any thread unless they
// say otherwise. Two machines in one process know nothing of each other.
class Vm {
 public:
  // Builds the whole machine, loads what is to be booted, and leaves the CPUs ready to run. Errors:
  // what the host lacks or refuses (kNoKvm, kUnsupported, kResource), what is wrong with the
  // configuration (kBadConfig, all problems in one message) or with a boot file (kBadKernel).
  static Result<std::unique_ptr<Vm>> create(VmConfig config);
  // Begins to make KVM ready, on a thread of its own: for VmConfig::early_kvm. Of use to a program
  // that has something else to do before it can say what the machine is. Any thread; what goes
  // wrong is create()'s to report.
  static std::shared_ptr<EarlyKvm> prepare_kvm();
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // Runs the guest until it stops, and says why. After kDeadline or kCancelled the guest is paused
  // and may be run on; after any other reason it is over. One caller at a time. Errors: host
  // failures only.
  Result<StopInfo> run(const RunOptions& options = {});

  // Makes a concurrent run() return kCancelled, and the next one too if none is active.
  void cancel();

  // Bytes for the guest's COM1 receiver: how many fit. When fewer than given, serial_input_space()
  // is signalled as soon as there is room again.
  std::size_t push_serial_input(std::span<const std::byte> bytes);
  const EventFd& serial_input_space() const;

  // The sink of SerialConfig is writable() again: lets the guest's transmitter go on.
  void serial_output_ready();

  const GuestMemory& memory() const;

  // Only while no run() is active.
  Result<x86::Registers> registers(VcpuId vcpu) const;
  Result<x86::SystemRegisters> system_registers(VcpuId vcpu) const;
  Result<void> set_registers(VcpuId vcpu, const x86::Registers& registers);

  VmStats stats() const;

  // What the machine and its virtio devices are at.
  VmStatus status() const;

  // How much of the guest's memory its balloon is to hold, in bytes: the driver works towards it.
  // Errors: kUnsupported without a balloon; kBadConfig when the guest does not have as much.
  Result<void> set_balloon(std::uint64_t bytes);
  // How much memory the guest is to have, in bytes, what it started with included: the driver works
  // towards it. Errors: kUnsupported when its memory is fixed; kBadConfig when the size is below
  // what it started with, above VirtioMemConfig::most, or no multiple of the unit.
  Result<void> set_memory(std::uint64_t bytes);
  // The image of a disk ("disk0") has changed its size: tells the guest. The size now. Errors:
  // kOutOfRange when there is no such disk; kIo.
  Result<std::uint64_t> refresh_disk(std::string_view name);
  // Plugs the cable of a network interface ("net0") in or pulls it. Errors: kOutOfRange when there
  // is no such interface.
  Result<void> set_link(std::string_view name, bool up);

  // What was decided at creation: the irqchip, quirks that are on, how the kernel is entered, one
  // line each.
  const std::vector<std::string>& decisions() const;

 private:
  class Impl;
  explicit Vm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmm

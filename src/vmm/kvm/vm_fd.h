// One KVM virtual machine: memory slots, interrupt chips, vCPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::kvm {

// One memory slot as KVM_SET_USER_MEMORY_REGION takes it.
struct Slot {
  std::uint32_t number = 0;
  GpaRange range;
  std::byte* hva = nullptr;
  bool read_only = false;
  bool log_dirty = false;
};

// One route of the GSI table: to a pin of an in-kernel chip, or to a message.
struct GsiRoute {
  std::uint32_t gsi = 0;
  bool is_msi = false;
  std::uint32_t chip = 0, pin = 0;  // KVM_IRQCHIP_*
  std::uint64_t msi_address = 0;
  std::uint32_t msi_data = 0;
  bool operator==(const GsiRoute&) const = default;
};

// An MSR whose accesses come to user space.
struct MsrTrap {
  std::uint32_t index = 0;
  bool reads = false;
  bool writes = false;
};

// Owner of a VM descriptor. Thread-safe: the kernel serialises. Memory behind a slot must outlive
// the slot.
class VmFd {
 public:
  VmFd(UniqueFd fd, std::size_t run_size, std::size_t xsave_size)
      : fd_(std::move(fd)), run_size_(run_size), xsave_size_(xsave_size) {}

  int fd() const noexcept { return fd_.get(); }

  // Adds, changes or (with an empty range) deletes a slot. On a VM with in-kernel chips each change
  // waits for a grace period of the kernel: set slots first.
  Result<void> set_slot(const Slot& slot) const;
  Result<void> set_tss_address(Gpa address) const;
  Result<void> set_identity_map_address(Gpa address) const;

  Result<void> create_irqchip() const;  // PIC pair, I/O APIC and local APICs
  Result<void> create_pit() const;      // 8254; needs create_irqchip()
  Result<void> enable_split_irqchip(std::uint32_t ioapic_pins) const;
  Result<void> enable_exit_on_emulation_failure() const;
  // Sends accesses of these MSRs to user space (MsrExit with filtered = true); with `refused` also
  // those that KVM would answer with #GP, as it does for an x2APIC that it does not emulate.
  Result<void> trap_msrs(std::span<const MsrTrap> traps, bool refused) const;

  Result<void> set_irq_line(std::uint32_t gsi, bool asserted) const;
  // True when a CPU took the message, false when the guest blocked it.
  Result<bool> signal_msi(std::uint64_t address, std::uint32_t data) const;
  Result<void> set_gsi_routing(std::span<const GsiRoute> routes) const;
  // kvmclock's value in nanoseconds.
  Result<std::uint64_t> clock() const;
  Result<void> set_clock(std::uint64_t nanoseconds) const;

  Result<VcpuFd> create_vcpu(std::uint32_t id) const;

 private:
  Result<void> enable(std::uint32_t capability, std::span<const std::uint64_t> args,
                      const char* name) const;
  UniqueFd fd_;
  std::size_t run_size_;
  std::size_t xsave_size_;
};

}  // namespace vmm::kvm

// A port on which a guest calls the program that embeds the machine.
//
//   config.hypercalls.push_back({.port = 0x640, .call = [](vmm::Hypercall& call) {
//     call.registers().gpr[vmm::x86::kRax] = call.registers().gpr[vmm::x86::kRbx] * 2;
//   }});
//
// The guest calls by OUT, of a byte, a word or a double word; of OUTS, each item is a call. IN from
// the port reads all ones. How arguments lie in registers and memory is between guest and program.
//
// Threats: a guest calls when and as often as it likes, from any privilege level that its I/O
// permissions allow; registers, and addresses in them, are whatever it has put there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "memory/address.h"
#include "memory/guest_memory.h"
#include "vmm/stop_reason.h"
#include "vmm/x86/registers.h"

namespace vmm {

namespace kvm {
class VcpuFd;
}
class StopBoard;

// One call. Lives as long as the function that is called, and is used on its thread only.
class Hypercall {
 public:
  // For the library; all borrowed.
  struct Caller {
    VcpuId vcpu{};
    const kvm::VcpuFd& cpu;
    const GuestMemory& memory;
    StopBoard& stops;
  };
  Hypercall(const Caller& caller, const x86::Registers& registers, std::uint16_t port,
            std::span<const std::byte> written)
      : caller_(caller), registers_(registers), port_(port), written_(written) {}
  Hypercall(const Hypercall&) = delete;
  Hypercall& operator=(const Hypercall&) = delete;

  VcpuId vcpu() const noexcept { return caller_.vcpu; }
  std::uint16_t port() const noexcept { return port_; }
  // Bytes that were written to the port: 1, 2 or 4; and what they were.
  std::size_t width() const noexcept { return written_.size(); }
  std::uint64_t value() const noexcept;

  // The CPU's general registers, with RIP behind the OUT (of an OUTS that is not over: on it). What
  // is changed here is changed for the guest when the function returns.
  x86::Registers& registers() noexcept { return registers_; }
  const x86::Registers& registers() const noexcept { return registers_; }
  // Errors: kIo, what KVM refuses.
  Result<x86::SystemRegisters> system_registers() const;

  const GuestMemory& memory() const noexcept { return caller_.memory; }
  // By linear addresses, as Vm::read_virtual(). Errors: kOutOfRange naming the address that is not
  // mapped, or is not RAM: nothing has been copied then.
  Result<void> read_virtual(Gva from, std::span<std::byte> bytes) const;
  Result<void> write_virtual(Gva to, std::span<const std::byte> bytes) const;

  // Ends the run behind this instruction: Vm::run() and run_until() return kCondition with this
  // CPU, value and sentence, and the guest may be run on.
  void stop(std::uint32_t value = 0, std::string detail = {});

 private:
  const Caller caller_;
  x86::Registers registers_;
  const std::uint16_t port_;
  const std::span<const std::byte> written_;
};

struct HypercallPort {
  // Four ports from here on are the call's, which no device may have: a double word covers them.
  std::uint16_t port = 0;
  // Called on the calling CPU's thread, by several CPUs at once if they call at once. The CPU
  // stands meanwhile, others run. It must not throw, nor call the Vm.
  std::function<void(Hypercall& call)> call = {};
};

}  // namespace vmm

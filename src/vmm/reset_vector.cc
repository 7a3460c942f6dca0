#include "vmm/reset_vector.h"

#include <array>
#include <cstddef>
#include <span>

#include "devices/rtc_cmos.h"
#include "vmm/x86/gdt.h"

namespace vmm {
namespace {

// SDM volume 3, 10.1.4.
constexpr std::uint64_t kResetCsBase = 0xffff'0000, kResetIp = 0xfff0;

constexpr std::uint8_t kShutdownStatus = 0x0f;
constexpr std::uint8_t kJumpAfterEoi = 0x05, kJump = 0x0a;
constexpr Gpa kFarPointer{0x467};

class Ports {
 public:
  Ports(Bus& bus, BusCache& cache) : bus_(bus), cache_(cache) {}
  void out(std::uint16_t port, std::uint8_t value) {
    const std::array bytes{std::byte{value}};
    bus_.write(cache_, port, bytes);
  }
  std::uint8_t in(std::uint16_t port) {
    std::array<std::byte, 1> bytes{};
    bus_.read(cache_, port, bytes);
    return std::to_integer<std::uint8_t>(bytes[0]);
  }

 private:
  Bus& bus_;
  BusCache& cache_;
};

std::uint8_t take_shutdown_status(Ports& ports) {
  ports.out(RtcCmos::kIndexPort, kShutdownStatus);
  const std::uint8_t status = ports.in(RtcCmos::kIndexPort + 1);
  ports.out(RtcCmos::kIndexPort + 1, 0);
  return status;
}

void end_interrupts(Ports& ports) {
  constexpr std::uint16_t kFirstPic = 0x20, kSecondPic = 0xa0;
  constexpr std::uint8_t kEoi = 0x20;
  ports.out(kSecondPic, kEoi);
  ports.out(kFirstPic, kEoi);
}

}  // namespace

Result<AtReset> at_reset_vector(const kvm::VcpuFd& cpu, const GuestMemory& memory, Bus& bus,
                                BusCache& cache) {
  x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  x86::Registers registers = VMM_TRY(cpu.registers());
  const bool real_mode = (system.cr0 & x86::kCr0Pe) == 0;
  if (!real_mode || system.cs.base != kResetCsBase || registers.rip != kResetIp) {
    return AtReset::kElsewhere;
  }
  Ports ports(bus, cache);
  const std::uint8_t status = take_shutdown_status(ports);
  const auto pointer = memory.read<std::array<std::uint16_t, 2>>(kFarPointer);
  if ((status != kJump && status != kJumpAfterEoi) || !pointer) return AtReset::kReset;
  if (status == kJumpAfterEoi) end_interrupts(ports);
  registers.rip = (*pointer)[0];
  system.cs = x86::real_code((*pointer)[1]);
  VMM_TRY(cpu.set_system_registers(system));
  VMM_TRY(cpu.set_registers(registers));
  return AtReset::kGoesOn;
}

}  // namespace vmm

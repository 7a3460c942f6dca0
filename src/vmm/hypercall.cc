#include "vmm/hypercall.h"

#include <utility>

#include "base/le.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/linear_memory.h"
#include "vmm/stop_board.h"

namespace vmm {

std::uint64_t Hypercall::value() const noexcept { return load_le(written_); }

Result<x86::SystemRegisters> Hypercall::system_registers() const {
  return caller_.cpu.system_registers();
}

Result<void> Hypercall::read_virtual(Gva from, std::span<std::byte> bytes) const {
  return read_linear(caller_.memory, VMM_TRY(system_registers()), registers_.rflags, from, bytes);
}

Result<void> Hypercall::write_virtual(Gva to, std::span<const std::byte> bytes) const {
  return write_linear(caller_.memory, VMM_TRY(system_registers()), registers_.rflags, to, bytes);
}

void Hypercall::stop(std::uint32_t value, std::string detail) {
  caller_.stops.post(StopInfo{.reason = StopReason::kCondition,
                              .vcpu = caller_.vcpu,
                              .value = value,
                              .detail = std::move(detail)});
}

}  // namespace vmm

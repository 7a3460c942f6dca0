// The reset vector: what firmware does when the boot CPU gets there while the guest runs, as by an
// INIT. This machine has no firmware, and nothing is at that address.
#pragma once

#include "base/result.h"
#include "devices/bus.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm {

enum class AtReset : std::uint8_t {
  kElsewhere,  // the CPU is not at the reset vector
  kGoesOn,     // it goes on where the guest wants it to
  kReset,      // the machine is to be reset
};

// The PC/AT's way (IBM PC/AT Technical Reference, BIOS listing, "shutdown"): the byte 0x0f of the
// CMOS memory says what the guest wants, and is cleared. 5 and 10 make the CPU go on in real mode
// at the far pointer at 40:67, 5 after an end of interrupt for both PICs. On the vCPU's thread, at
// rest; `ports` with the CPU's cache. Errors: the host's.
Result<AtReset> at_reset_vector(const kvm::VcpuFd& cpu, const GuestMemory& memory, Bus& ports,
                                BusCache& cache);

}  // namespace vmm

// What is on its way to a CPU, and what keeps events away from it (KVM_GET_VCPU_EVENTS).
#pragma once

#include <cstdint>

namespace vmm::x86 {

struct CpuEvents {
  // An exception that the next instruction boundary delivers. "injected": again, whatever its
  // delivery has been interrupted by; "pending": for the first time. Setting either injects it.
  bool exception_injected = false, exception_pending = false, exception_has_error = false;
  std::uint8_t exception = 0;  // its Vector
  std::uint32_t exception_error = 0;
  // An interrupt that the CPU has taken from its controller, or an INT n ("soft"), to be delivered.
  bool interrupt_injected = false, interrupt_soft = false;
  std::uint8_t interrupt = 0;         // its vector
  std::uint8_t interrupt_shadow = 0;  // bit 0: behind MOV SS, bit 1: behind STI
  bool nmi_injected = false;          // one that is being delivered
  bool nmi_masked = false;            // until IRET
  std::uint8_t nmi_pending = 0;       // those that wait: 0 to 2
  std::uint32_t sipi_vector = 0;      // of the last start-up IPI, where KVM has the local APICs
  bool smm = false;                   // in system management mode
  bool smi_pending = false, smm_inside_nmi = false, latched_init = false;

  bool operator==(const CpuEvents&) const = default;
  static void fields(auto&& f) {
    f("exception_injected", &CpuEvents::exception_injected);
    f("exception_pending", &CpuEvents::exception_pending);
    f("exception_has_error", &CpuEvents::exception_has_error);
    f("exception", &CpuEvents::exception);
    f("exception_error", &CpuEvents::exception_error);
    f("interrupt_injected", &CpuEvents::interrupt_injected);
    f("interrupt_soft", &CpuEvents::interrupt_soft);
    f("interrupt", &CpuEvents::interrupt);
    f("interrupt_shadow", &CpuEvents::interrupt_shadow);
    f("nmi_injected", &CpuEvents::nmi_injected);
    f("nmi_masked", &CpuEvents::nmi_masked);
    f("nmi_pending", &CpuEvents::nmi_pending);
    f("sipi_vector", &CpuEvents::sipi_vector);
    f("smm", &CpuEvents::smm);
    f("smi_pending", &CpuEvents::smi_pending);
    f("smm_inside_nmi", &CpuEvents::smm_inside_nmi);
    f("latched_init", &CpuEvents::latched_init);
  }
};

}  // namespace vmm::x86

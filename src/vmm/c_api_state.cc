// The C API: CPUs' state and the guest's memory.
#include "vmm/c_api_handles.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

using vmm::Result;
using namespace vmm::c;

namespace vmm::c {

vmm_registers to_c(const x86::Registers& registers) {
  vmm_registers made{{}, registers.rip, registers.rflags};
  std::memcpy(made.gpr, registers.gpr.data(), sizeof(made.gpr));
  return made;
}

x86::Registers from_c(const vmm_registers& registers) {
  x86::Registers made{{}, registers.rip, registers.rflags};
  std::memcpy(made.gpr.data(), registers.gpr, sizeof(registers.gpr));
  return made;
}

}  // namespace vmm::c

namespace {

// fn(field of C, field of C++) for each.
template <typename C, typename Events, typename Fn>
void for_each_event(C& c, Events& e, Fn&& fn) {
  fn(c.exception_injected, e.exception_injected);
  fn(c.exception_pending, e.exception_pending);
  fn(c.exception_has_error, e.exception_has_error);
  fn(c.exception, e.exception);
  fn(c.exception_error, e.exception_error);
  fn(c.interrupt_injected, e.interrupt_injected);
  fn(c.interrupt_soft, e.interrupt_soft);
  fn(c.interrupt, e.interrupt);
  fn(c.interrupt_shadow, e.interrupt_shadow);
  fn(c.nmi_injected, e.nmi_injected);
  fn(c.nmi_masked, e.nmi_masked);
  fn(c.nmi_pending, e.nmi_pending);
  fn(c.smm, e.smm);
  fn(c.smi_pending, e.smi_pending);
  fn(c.smm_inside_nmi, e.smm_inside_nmi);
  fn(c.latched_init, e.latched_init);
  fn(c.sipi_vector, e.sipi_vector);
}

vmm_events to_c(const vmm::x86::CpuEvents& events) {
  vmm_events c{};
  for_each_event(c, events, [](auto& to, auto from) { to = from; });
  return c;
}

vmm::x86::CpuEvents from_c(const vmm_events& c) {
  vmm::x86::CpuEvents events;
  for_each_event(c, events, [](auto from, auto& to) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(to)>, bool>) {
      to = from != 0;
    } else {
      to = from;
    }
  });
  return events;
}

// The same for the registers that have as many bits in both.
template <typename C, typename Lapic, typename Fn>
void for_each_register(C& c, Lapic& l, Fn&& fn) {
  for (std::size_t i = 0; i < l.isr.size(); ++i) {
    fn(c.isr[i], l.isr[i]);
    fn(c.tmr[i], l.tmr[i]);
    fn(c.irr[i], l.irr[i]);
  }
  fn(c.version, l.version);
  fn(c.ldr, l.ldr);
  fn(c.dfr, l.dfr);
  fn(c.svr, l.svr);
  fn(c.esr, l.esr);
  fn(c.icr, l.icr);
  fn(c.lvt_timer, l.lvt_timer);
  fn(c.lvt_thermal, l.lvt_thermal);
  fn(c.lvt_performance, l.lvt_performance);
  fn(c.lvt_lint0, l.lvt_lint0);
  fn(c.lvt_lint1, l.lvt_lint1);
  fn(c.lvt_error, l.lvt_error);
  fn(c.initial_count, l.initial_count);
  fn(c.current_count, l.current_count);
  fn(c.divide, l.divide);
  fn(c.tsc_deadline, l.tsc_deadline);
}

// A word of C that is to be a byte.
Result<std::uint8_t> byte_of(std::uint32_t value, const char* name) {
  if (value <= 0xff) return static_cast<std::uint8_t>(value);
  return vmm::fail(vmm::ErrorCode::kBadConfig, "{} of a local APIC has 8 bits: {:#x}", name, value);
}

vmm_lapic to_c(const vmm::x86::LapicRegisters& lapic) {
  vmm_lapic c{};
  c.id = lapic.id;
  c.tpr = lapic.tpr;
  c.ppr = lapic.ppr;
  for_each_register(c, lapic, [](auto& to, auto from) { to = from; });
  return c;
}

Result<vmm::x86::LapicRegisters> from_c(const vmm_lapic& c) {
  vmm::x86::LapicRegisters lapic;
  lapic.id = VMM_TRY(byte_of(c.id, "The ID"));
  lapic.tpr = VMM_TRY(byte_of(c.tpr, "The TPR"));
  lapic.ppr = VMM_TRY(byte_of(c.ppr, "The PPR"));
  for_each_register(c, lapic, [](auto from, auto& to) { to = from; });
  return lapic;
}

}  // namespace

// ---- CPUs

int vmm_get_registers(const vmm_vm* vm, uint32_t cpu, vmm_registers* registers, vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto now = vm->vm->registers(vmm::VcpuId{cpu});
    if (now) *registers = to_c(*now);
    return done(now, error);
  });
}

int vmm_set_registers(vmm_vm* vm, uint32_t cpu, const vmm_registers* registers, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->set_registers(vmm::VcpuId{cpu}, from_c(*registers)), error);
  });
}

int vmm_get_control_registers(const vmm_vm* vm, uint32_t cpu, vmm_control_registers* registers,
                              vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto now = vm->vm->system_registers(vmm::VcpuId{cpu});
    if (!done(now, error)) return 0;
    *registers = {now->cr0, now->cr2, now->cr3, now->cr4, now->cr8, now->efer};
    return 1;
  });
}

int vmm_get_msr(const vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t* value,
                vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto now = vm->vm->msr(vmm::VcpuId{cpu}, index);
    if (now) *value = *now;
    return done(now, error);
  });
}

int vmm_set_msr(vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t value, vmm_error** error) {
  return guarded(
      error, [&]() -> int { return done(vm->vm->set_msr(vmm::VcpuId{cpu}, index, value), error); });
}

int vmm_get_events(const vmm_vm* vm, uint32_t cpu, vmm_events* events, vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto now = vm->vm->events(vmm::VcpuId{cpu});
    if (now) *events = to_c(*now);
    return done(now, error);
  });
}

int vmm_set_events(vmm_vm* vm, uint32_t cpu, const vmm_events* events, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->set_events(vmm::VcpuId{cpu}, from_c(*events)), error);
  });
}

int vmm_get_lapic(const vmm_vm* vm, uint32_t cpu, vmm_lapic* lapic, vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto now = vm->vm->lapic(vmm::VcpuId{cpu});
    if (now) *lapic = to_c(*now);
    return done(now, error);
  });
}

int vmm_set_lapic(vmm_vm* vm, uint32_t cpu, const vmm_lapic* lapic, vmm_error** error) {
  return guarded(error, [&]() -> int {
    const auto wanted = from_c(*lapic);
    if (!wanted) return done(wanted, error);
    return done(vm->vm->set_lapic(vmm::VcpuId{cpu}, *wanted), error);
  });
}

// ---- memory

int vmm_read(const vmm_vm* vm, uint64_t gpa, void* bytes, size_t size, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->memory().read(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
  });
}

int vmm_write(vmm_vm* vm, uint64_t gpa, const void* bytes, size_t size, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->memory().write(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
  });
}

int vmm_read_virtual(const vmm_vm* vm, uint32_t cpu, uint64_t gva, void* bytes, size_t size,
                     vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->read_virtual(vmm::VcpuId{cpu}, vmm::Gva(gva), bytes_of(bytes, size)),
                error);
  });
}

int vmm_write_virtual(vmm_vm* vm, uint32_t cpu, uint64_t gva, const void* bytes, size_t size,
                      vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->write_virtual(vmm::VcpuId{cpu}, vmm::Gva(gva), bytes_of(bytes, size)),
                error);
  });
}

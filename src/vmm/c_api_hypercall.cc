// The C API: ports by which the guest calls the program.
#include "vmm/c_api_handles.h"

#include <functional>
#include <utility>

using namespace vmm::c;

int vmm_config_add_hypercall(vmm_config* config, uint16_t port, vmm_hypercall function,
                             void* context, vmm_error** error) {
  return guarded(error, [&]() -> int {
    config->config.hypercalls.push_back({.port = port,
                                         .call = function == nullptr
                                                     ? std::function<void(vmm::Hypercall&)>()
                                                     : [function, context](vmm::Hypercall& call) {
                                                         vmm_call handle{call};
                                                         function(&handle, context);
                                                       }});
    return 1;
  });
}

uint32_t vmm_call_cpu(const vmm_call* call) { return static_cast<uint32_t>(call->call.vcpu()); }
uint16_t vmm_call_port(const vmm_call* call) { return call->call.port(); }
uint64_t vmm_call_value(const vmm_call* call) { return call->call.value(); }

void vmm_call_get_registers(const vmm_call* call, vmm_registers* registers) {
  *registers = to_c(std::as_const(call->call).registers());
}

void vmm_call_set_registers(vmm_call* call, const vmm_registers* registers) {
  call->call.registers() = from_c(*registers);
}

int vmm_call_read(const vmm_call* call, uint64_t gpa, void* bytes, size_t size, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(call->call.memory().read(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
  });
}

int vmm_call_write(vmm_call* call, uint64_t gpa, const void* bytes, size_t size,
                   vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(call->call.memory().write(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
  });
}

int vmm_call_read_virtual(const vmm_call* call, uint64_t gva, void* bytes, size_t size,
                          vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(call->call.read_virtual(vmm::Gva(gva), bytes_of(bytes, size)), error);
  });
}

int vmm_call_write_virtual(vmm_call* call, uint64_t gva, const void* bytes, size_t size,
                           vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(call->call.write_virtual(vmm::Gva(gva), bytes_of(bytes, size)), error);
  });
}

void vmm_call_stop(vmm_call* call, uint32_t value) {
  (void)guarded(nullptr, [&]() -> int { return call->call.stop(value), 1; });
}

#include "vmm/c_api.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "devices/capture_sink.h"
#include "vmm/version.h"
#include "vmm/vm.h"

struct vmm_error {
  std::string code, message;
};

struct vmm_config {
  vmm::VmConfig config;
  bool incomplete = false;  // there was no memory for a change
};

struct vmm_vm {
  std::unique_ptr<vmm::CaptureSink> console;  // outlives the machine
  std::vector<vmm::HypercallPort> hypercalls;
  std::unique_ptr<vmm::Vm> vm;
};

struct vmm_snapshot {
  std::shared_ptr<const vmm::Snapshot> snapshot;
};

struct vmm_call {
  vmm::Hypercall& call;
};

struct vmm_stop {
  vmm::StopInfo stop;
  std::string reason, console;
  bool met;
};

namespace {

using vmm::fail;
using vmm::Result;

std::string text_of(const char* text) { return text == nullptr ? std::string() : text; }

std::chrono::nanoseconds deadline_of(std::uint64_t ns) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return std::chrono::nanoseconds(static_cast<std::int64_t>(ns < kMost ? ns : kMost));
}

void tell(vmm_error** to, std::string_view code, std::string_view message) {
  if (to != nullptr) *to = new vmm_error{std::string(code), std::string(message)};
}

// Needs no more memory than the error itself: both texts are as short as a std::string's own place.
void tell_out_of_memory(vmm_error** to) noexcept {
  if (to != nullptr) *to = new (std::nothrow) vmm_error{"Resource", "Out of memory"};
}

// The end of all exceptions: runs a function of the API and returns what it does, or nothing with
// what was thrown as the error.
template <typename Fn>
auto guarded(vmm_error** error, Fn&& fn) noexcept -> decltype(fn()) {
  try {
    try {
      return fn();
    } catch (const std::bad_alloc&) {
      tell_out_of_memory(error);
    } catch (const std::exception& thrown) {  // no thread to be had, ...
      tell(error, "Resource", thrown.what());
    }
  } catch (...) {  // or no memory for that text
    tell_out_of_memory(error);
  }
  return {};
}

// A change of a configuration by a function that cannot fail: vmm_create() does then.
template <typename Fn>
void change(vmm_config* config, Fn&& fn) noexcept {
  const int changed = guarded(nullptr, [&]() -> int { return fn(), 1; });
  config->incomplete = config->incomplete || changed == 0;
}

template <typename T>
int done(const Result<T>& result, vmm_error** error) {
  if (!result) tell(error, to_string(result.error().code()), result.error().message());
  return result ? 1 : 0;
}

vmm_stop* handle(vmm::StopInfo stop, std::string console, bool met) {
  std::string reason(to_string(stop.reason));
  return new vmm_stop{std::move(stop), std::move(reason), std::move(console), met};
}

vmm_stop* until(vmm_vm* vm, vmm::Condition condition, std::uint64_t deadline_ns,
                vmm_error** error) {
  auto result = vm->vm->run_until({std::move(condition)}, deadline_of(deadline_ns));
  if (!done(result, error)) return nullptr;
  return handle(std::move(result->stop), std::move(result->console), result->met.has_value());
}

template <typename Enum, std::size_t N>
Result<Enum> named(const std::array<std::pair<std::string_view, Enum>, N>& names, const char* name,
                   std::string_view what) {
  for (const auto& [known, value] : names) {
    if (name != nullptr && known == name) return value;
  }
  return fail(vmm::ErrorCode::kBadConfig, "'{}' is no {}", text_of(name), what);
}

vmm_registers to_c(const vmm::x86::Registers& registers) {
  vmm_registers made{{}, registers.rip, registers.rflags};
  std::memcpy(made.gpr, registers.gpr.data(), sizeof(made.gpr));
  return made;
}

vmm::x86::Registers from_c(const vmm_registers& registers) {
  vmm::x86::Registers made{{}, registers.rip, registers.rflags};
  std::memcpy(made.gpr.data(), registers.gpr, sizeof(registers.gpr));
  return made;
}

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

std::span<const std::byte> bytes_of(const void* bytes, std::size_t size) {
  return {static_cast<const std::byte*>(bytes), size};
}

std::span<std::byte> bytes_of(void* bytes, std::size_t size) {
  return {static_cast<std::byte*>(bytes), size};
}

}  // namespace

const char* vmm_version(void) { return vmm::version(); }

const char* vmm_error_code(const vmm_error* error) { return error->code.c_str(); }
const char* vmm_error_message(const vmm_error* error) { return error->message.c_str(); }
void vmm_error_free(vmm_error* error) { delete error; }

// ---- configuration

vmm_config* vmm_config_new(void) {
  return guarded(nullptr, []() -> vmm_config* { return new vmm_config; });
}
void vmm_config_free(vmm_config* config) { delete config; }

void vmm_config_set_memory(vmm_config* config, uint64_t bytes) {
  config->config.memory.size = bytes;
}

void vmm_config_set_cpus(vmm_config* config, uint32_t count) { config->config.cpus.count = count; }

int vmm_config_set_irqchip(vmm_config* config, const char* mode, vmm_error** error) {
  return guarded(error, [&]() -> int {
    using enum vmm::IrqchipMode;
    constexpr std::array<std::pair<std::string_view, vmm::IrqchipMode>, 5> kModes{
        {{"auto", kAuto},
         {"none", kNone},
         {"kernel", kKernel},
         {"split", kSplit},
         {"user", kUser}}};
    const auto found = named(kModes, mode, "irqchip: auto, none, kernel, split or user");
    if (found) config->config.irqchip = *found;
    return done(found, error);
  });
}

void vmm_config_set_clock_rate(vmm_config* config, double rate) {
  config->config.clock.rate = rate;
}

void vmm_config_boot_builtin(vmm_config* config, const char* cmdline) {
  change(config, [&] { config->config.boot = vmm::BuiltinGuest{.cmdline = text_of(cmdline)}; });
}

void vmm_config_boot_kernel(vmm_config* config, const char* kernel, const char* initrd,
                            const char* cmdline) {
  change(config, [&] {
    vmm::KernelBoot boot{.kernel = text_of(kernel), .cmdline = text_of(cmdline)};
    if (initrd != nullptr) boot.initrd = initrd;
    config->config.boot = std::move(boot);
  });
}

int vmm_config_boot_flat(vmm_config* config, const void* code, size_t size, uint64_t address,
                         const char* mode, vmm_error** error) {
  return guarded(error, [&]() -> int {
    using enum vmm::FlatMode;
    constexpr std::array<std::pair<std::string_view, vmm::FlatMode>, 3> kModes{
        {{"real", kReal}, {"protected", kProtected}, {"long", kLong}}};
    const auto found = named(kModes, mode, "CPU mode: real, protected or long");
    if (found) {
      const auto image = bytes_of(code, size);
      config->config.boot = vmm::FlatBoot{
          .image = {image.begin(), image.end()}, .address = vmm::Gpa(address), .mode = *found};
    }
    return done(found, error);
  });
}

void vmm_config_boot_snapshot(vmm_config* config, const vmm_snapshot* snapshot) {
  change(config, [&] {
    vmm::VmConfig made = vmm::Snapshot::config(snapshot->snapshot);
    made.hypercalls = std::move(config->config.hypercalls);
    config->config = std::move(made);
  });
}

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

// ---- machines

vmm_vm* vmm_create(const vmm_config* config, vmm_error** error) {
  return guarded(error, [&]() -> vmm_vm* {
    if (config->incomplete) {
      tell(error, "Resource", "There was no memory for all of the configuration");
      return nullptr;
    }
    auto made = std::make_unique<vmm_vm>();
    made->console = std::make_unique<vmm::CaptureSink>();
    made->hypercalls = config->config.hypercalls;
    vmm::VmConfig own = config->config;
    own.serial.output = made->console.get();
    auto vm = vmm::Vm::create(std::move(own));
    if (!done(vm, error)) return nullptr;
    made->vm = *std::move(vm);
    return made.release();
  });
}

void vmm_destroy(vmm_vm* vm) { delete vm; }

char* vmm_console(const vmm_vm* vm, size_t* size) {
  return guarded(nullptr, [&]() -> char* {
    const std::string text = vm->console->text();
    if (size != nullptr) *size = text.size();
    void* const copy = std::malloc(text.size() + 1);
    if (copy != nullptr) std::memcpy(copy, text.c_str(), text.size() + 1);
    return static_cast<char*>(copy);
  });
}

void vmm_free(void* text) { std::free(text); }

size_t vmm_send(vmm_vm* vm, const void* bytes, size_t size) {
  return guarded(nullptr,
                 [&]() -> size_t { return vm->vm->push_serial_input(bytes_of(bytes, size)); });
}

vmm_stop* vmm_run(vmm_vm* vm, uint64_t deadline_ns, vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    auto stop = vm->vm->run({.deadline = deadline_of(deadline_ns)});
    if (!done(stop, error)) return nullptr;
    return handle(*std::move(stop), {}, false);
  });
}

vmm_stop* vmm_run_until_console(vmm_vm* vm, const char* text, uint64_t deadline_ns,
                                vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    return until(vm, vmm::UntilConsole{text_of(text)}, deadline_ns, error);
  });
}

vmm_stop* vmm_run_until_match(vmm_vm* vm, const char* pattern, uint64_t deadline_ns,
                              vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    return until(vm, vmm::UntilConsoleMatches{text_of(pattern)}, deadline_ns, error);
  });
}

vmm_stop* vmm_run_until_address(vmm_vm* vm, uint64_t gva, uint64_t deadline_ns, vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    return until(vm, vmm::UntilAddress{vmm::Gva(gva)}, deadline_ns, error);
  });
}

vmm_stop* vmm_run_until_exits(vmm_vm* vm, uint64_t count, uint64_t deadline_ns, vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    return until(vm, vmm::UntilExitCount{count}, deadline_ns, error);
  });
}

vmm_stop* vmm_step(vmm_vm* vm, uint32_t cpu, uint64_t deadline_ns, vmm_error** error) {
  return guarded(error, [&]() -> vmm_stop* {
    auto stop = vm->vm->step(vmm::VcpuId{cpu}, deadline_of(deadline_ns));
    if (!done(stop, error)) return nullptr;
    const bool met = stop->reason == vmm::StopReason::kCondition;
    return handle(*std::move(stop), {}, met);
  });
}

void vmm_cancel(vmm_vm* vm) {
  (void)guarded(nullptr, [&]() -> int { return vm->vm->cancel(), 1; });
}
int vmm_pause(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->pause(), error); });
}
int vmm_resume(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->resume(), error); });
}
int vmm_advance_time(vmm_vm* vm, uint64_t nanoseconds, vmm_error** error) {
  return guarded(error, [&]() -> int {
    constexpr uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    const auto by = static_cast<std::int64_t>(std::min(nanoseconds, kMost));
    return done(vm->vm->advance_time(std::chrono::nanoseconds(by)), error);
  });
}

const char* vmm_stop_reason(const vmm_stop* stop) { return stop->reason.c_str(); }
int vmm_stop_is_met(const vmm_stop* stop) { return stop->met ? 1 : 0; }
uint32_t vmm_stop_cpu(const vmm_stop* stop) { return static_cast<uint32_t>(stop->stop.vcpu); }
uint32_t vmm_stop_value(const vmm_stop* stop) { return stop->stop.value; }
const char* vmm_stop_detail(const vmm_stop* stop) { return stop->stop.detail.c_str(); }
const char* vmm_stop_report(const vmm_stop* stop) { return stop->stop.report.c_str(); }
const char* vmm_stop_console(const vmm_stop* stop) { return stop->console.c_str(); }
void vmm_stop_free(vmm_stop* stop) { delete stop; }

// ---- state

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

// ---- snapshots

vmm_snapshot* vmm_take_snapshot(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> vmm_snapshot* {
    auto taken = vm->vm->snapshot();
    return done(taken, error) ? new vmm_snapshot{*std::move(taken)} : nullptr;
  });
}

int vmm_reset_to(vmm_vm* vm, const vmm_snapshot* snapshot, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->reset_to(snapshot->snapshot), error); });
}

int vmm_save(vmm_vm* vm, const char* path, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->save(text_of(path)), error); });
}

int vmm_save_increment(vmm_vm* vm, const char* path, const char* base, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->save_increment(text_of(path), text_of(base)), error);
  });
}

vmm_snapshot* vmm_open_snapshot(const char* path, vmm_error** error) {
  return guarded(error, [&]() -> vmm_snapshot* {
    auto opened = vmm::Snapshot::open(text_of(path));
    return done(opened, error) ? new vmm_snapshot{*std::move(opened)} : nullptr;
  });
}

void vmm_snapshot_free(vmm_snapshot* snapshot) { delete snapshot; }

vmm_vm* vmm_clone(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> vmm_vm* {
    auto made = std::make_unique<vmm_vm>();
    made->console = std::make_unique<vmm::CaptureSink>();
    made->hypercalls = vm->hypercalls;
    auto cloned = vm->vm->clone([&made](vmm::VmConfig& config) -> Result<void> {
      config.serial.output = made->console.get();
      config.hypercalls = made->hypercalls;
      return {};
    });
    if (!done(cloned, error)) return nullptr;
    made->vm = *std::move(cloned);
    return made.release();
  });
}

// ---- hypercalls

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

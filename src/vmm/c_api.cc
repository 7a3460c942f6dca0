#include "vmm/c_api.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "devices/capture_sink.h"
#include "vmm/version.h"
#include "vmm/vm.h"

struct vmm_error {
  std::string code, message;
};

struct vmm_config {
  vmm::VmConfig config;
};

struct vmm_vm {
  std::unique_ptr<vmm::CaptureSink> console;  // outlives the machine
  std::unique_ptr<vmm::Vm> vm;
};

struct vmm_snapshot {
  std::shared_ptr<const vmm::Snapshot> snapshot;
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

void tell(const vmm::Error& error, vmm_error** to) {
  if (to == nullptr) return;
  *to = new vmm_error{std::string(to_string(error.code())), error.message()};
}

template <typename T>
int done(const Result<T>& result, vmm_error** error) {
  if (!result) tell(result.error(), error);
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

vmm_config* vmm_config_new(void) { return new vmm_config; }
void vmm_config_free(vmm_config* config) { delete config; }

void vmm_config_set_memory(vmm_config* config, uint64_t bytes) {
  config->config.memory.size = bytes;
}

void vmm_config_set_cpus(vmm_config* config, uint32_t count) { config->config.cpus.count = count; }

int vmm_config_set_irqchip(vmm_config* config, const char* mode, vmm_error** error) {
  using enum vmm::IrqchipMode;
  constexpr std::array<std::pair<std::string_view, vmm::IrqchipMode>, 5> kModes{
      {{"auto", kAuto}, {"none", kNone}, {"kernel", kKernel}, {"split", kSplit}, {"user", kUser}}};
  const auto found = named(kModes, mode, "irqchip: auto, none, kernel, split or user");
  if (found) config->config.irqchip = *found;
  return done(found, error);
}

void vmm_config_boot_builtin(vmm_config* config, const char* cmdline) {
  config->config.boot = vmm::BuiltinGuest{.cmdline = text_of(cmdline)};
}

void vmm_config_boot_kernel(vmm_config* config, const char* kernel, const char* initrd,
                            const char* cmdline) {
  vmm::KernelBoot boot{.kernel = text_of(kernel), .cmdline = text_of(cmdline)};
  if (initrd != nullptr) boot.initrd = initrd;
  config->config.boot = std::move(boot);
}

int vmm_config_boot_flat(vmm_config* config, const void* code, size_t size, uint64_t address,
                         const char* mode, vmm_error** error) {
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
}

void vmm_config_boot_snapshot(vmm_config* config, const vmm_snapshot* snapshot) {
  config->config = vmm::Snapshot::config(snapshot->snapshot);
}

// ---- machines

vmm_vm* vmm_create(const vmm_config* config, vmm_error** error) {
  auto made = std::make_unique<vmm_vm>();
  made->console = std::make_unique<vmm::CaptureSink>();
  vmm::VmConfig own = config->config;
  own.serial.output = made->console.get();
  auto vm = vmm::Vm::create(std::move(own));
  if (!done(vm, error)) return nullptr;
  made->vm = *std::move(vm);
  return made.release();
}

void vmm_destroy(vmm_vm* vm) { delete vm; }

char* vmm_console(const vmm_vm* vm, size_t* size) {
  const std::string text = vm->console->text();
  if (size != nullptr) *size = text.size();
  void* const copy = std::malloc(text.size() + 1);
  if (copy != nullptr) std::memcpy(copy, text.c_str(), text.size() + 1);
  return static_cast<char*>(copy);
}

void vmm_free(void* text) { std::free(text); }

size_t vmm_send(vmm_vm* vm, const void* bytes, size_t size) {
  return vm->vm->push_serial_input(bytes_of(bytes, size));
}

vmm_stop* vmm_run(vmm_vm* vm, uint64_t deadline_ns, vmm_error** error) {
  auto stop = vm->vm->run({.deadline = deadline_of(deadline_ns)});
  if (!done(stop, error)) return nullptr;
  return handle(*std::move(stop), {}, false);
}

vmm_stop* vmm_run_until_console(vmm_vm* vm, const char* text, uint64_t deadline_ns,
                                vmm_error** error) {
  return until(vm, vmm::UntilConsole{text_of(text)}, deadline_ns, error);
}

vmm_stop* vmm_run_until_match(vmm_vm* vm, const char* pattern, uint64_t deadline_ns,
                              vmm_error** error) {
  return until(vm, vmm::UntilConsoleMatches{text_of(pattern)}, deadline_ns, error);
}

vmm_stop* vmm_run_until_address(vmm_vm* vm, uint64_t gva, uint64_t deadline_ns, vmm_error** error) {
  return until(vm, vmm::UntilAddress{vmm::Gva(gva)}, deadline_ns, error);
}

vmm_stop* vmm_run_until_exits(vmm_vm* vm, uint64_t count, uint64_t deadline_ns, vmm_error** error) {
  return until(vm, vmm::UntilExitCount{count}, deadline_ns, error);
}

vmm_stop* vmm_step(vmm_vm* vm, uint32_t cpu, uint64_t deadline_ns, vmm_error** error) {
  auto stop = vm->vm->step(vmm::VcpuId{cpu}, deadline_of(deadline_ns));
  if (!done(stop, error)) return nullptr;
  const bool met = stop->reason == vmm::StopReason::kCondition;
  return handle(*std::move(stop), {}, met);
}

void vmm_cancel(vmm_vm* vm) { vm->vm->cancel(); }
int vmm_pause(vmm_vm* vm, vmm_error** error) { return done(vm->vm->pause(), error); }
int vmm_resume(vmm_vm* vm, vmm_error** error) { return done(vm->vm->resume(), error); }

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
  const auto now = vm->vm->registers(vmm::VcpuId{cpu});
  if (!done(now, error)) return 0;
  std::memcpy(registers->gpr, now->gpr.data(), sizeof(registers->gpr));
  registers->rip = now->rip;
  registers->rflags = now->rflags;
  return 1;
}

int vmm_set_registers(vmm_vm* vm, uint32_t cpu, const vmm_registers* registers, vmm_error** error) {
  vmm::x86::Registers wanted;
  std::memcpy(wanted.gpr.data(), registers->gpr, sizeof(registers->gpr));
  wanted.rip = registers->rip;
  wanted.rflags = registers->rflags;
  return done(vm->vm->set_registers(vmm::VcpuId{cpu}, wanted), error);
}

int vmm_get_control_registers(const vmm_vm* vm, uint32_t cpu, vmm_control_registers* registers,
                              vmm_error** error) {
  const auto now = vm->vm->system_registers(vmm::VcpuId{cpu});
  if (!done(now, error)) return 0;
  *registers = {now->cr0, now->cr2, now->cr3, now->cr4, now->cr8, now->efer};
  return 1;
}

int vmm_get_msr(const vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t* value,
                vmm_error** error) {
  const auto now = vm->vm->msr(vmm::VcpuId{cpu}, index);
  if (now) *value = *now;
  return done(now, error);
}

int vmm_set_msr(vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t value, vmm_error** error) {
  return done(vm->vm->set_msr(vmm::VcpuId{cpu}, index, value), error);
}

// ---- memory

int vmm_read(const vmm_vm* vm, uint64_t gpa, void* bytes, size_t size, vmm_error** error) {
  return done(vm->vm->memory().read(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
}

int vmm_write(vmm_vm* vm, uint64_t gpa, const void* bytes, size_t size, vmm_error** error) {
  return done(vm->vm->memory().write(vmm::Gpa(gpa), bytes_of(bytes, size)), error);
}

int vmm_read_virtual(const vmm_vm* vm, uint32_t cpu, uint64_t gva, void* bytes, size_t size,
                     vmm_error** error) {
  return done(vm->vm->read_virtual(vmm::VcpuId{cpu}, vmm::Gva(gva), bytes_of(bytes, size)), error);
}

int vmm_write_virtual(vmm_vm* vm, uint32_t cpu, uint64_t gva, const void* bytes, size_t size,
                      vmm_error** error) {
  return done(vm->vm->write_virtual(vmm::VcpuId{cpu}, vmm::Gva(gva), bytes_of(bytes, size)), error);
}

// ---- snapshots

vmm_snapshot* vmm_take_snapshot(vmm_vm* vm, vmm_error** error) {
  auto taken = vm->vm->snapshot();
  return done(taken, error) ? new vmm_snapshot{*std::move(taken)} : nullptr;
}

int vmm_reset_to(vmm_vm* vm, const vmm_snapshot* snapshot, vmm_error** error) {
  return done(vm->vm->reset_to(snapshot->snapshot), error);
}

int vmm_save(vmm_vm* vm, const char* path, vmm_error** error) {
  return done(vm->vm->save(text_of(path)), error);
}

vmm_snapshot* vmm_open_snapshot(const char* path, vmm_error** error) {
  auto opened = vmm::Snapshot::open(text_of(path));
  return done(opened, error) ? new vmm_snapshot{*std::move(opened)} : nullptr;
}

void vmm_snapshot_free(vmm_snapshot* snapshot) { delete snapshot; }

vmm_vm* vmm_clone(vmm_vm* vm, vmm_error** error) {
  auto made = std::make_unique<vmm_vm>();
  made->console = std::make_unique<vmm::CaptureSink>();
  auto cloned = vm->vm->clone([&made](vmm::VmConfig& config) -> Result<void> {
    config.serial.output = made->console.get();
    return {};
  });
  if (!done(cloned, error)) return nullptr;
  made->vm = *std::move(cloned);
  return made.release();
}

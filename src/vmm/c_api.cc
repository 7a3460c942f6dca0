// The C API: errors, configurations, machines and their runs.
#include "vmm/c_api_handles.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "vmm/version.h"

struct vmm_stop {
  vmm::StopInfo stop;
  std::string reason, console;
  bool met;
};

using vmm::fail;
using vmm::Result;
using namespace vmm::c;

namespace vmm::c {

void tell(vmm_error** to, std::string_view code, std::string_view message) {
  if (to != nullptr) *to = new vmm_error{std::string(code), std::string(message)};
}

// Needs no more memory than the error itself: both texts are as short as a std::string's own place.
void tell_out_of_memory(vmm_error** to) noexcept {
  if (to != nullptr) *to = new (std::nothrow) vmm_error{"Resource", "Out of memory"};
}

}  // namespace vmm::c

namespace {

std::chrono::nanoseconds deadline_of(std::uint64_t ns) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return std::chrono::nanoseconds(static_cast<std::int64_t>(ns < kMost ? ns : kMost));
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

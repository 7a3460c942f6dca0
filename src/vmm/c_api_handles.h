// What the handles of the C API are, and what all its functions have in common. Not installed.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/capture_sink.h"
#include "vmm/c_api.h"
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

struct vmm_page_list {
  std::shared_ptr<const vmm::PageList> list;
};

struct vmm_call {
  vmm::Hypercall& call;
};

namespace vmm::c {

inline std::string text_of(const char* text) { return text == nullptr ? std::string() : text; }

inline std::span<const std::byte> bytes_of(const void* bytes, std::size_t size) {
  return {static_cast<const std::byte*>(bytes), size};
}
inline std::span<std::byte> bytes_of(void* bytes, std::size_t size) {
  return {static_cast<std::byte*>(bytes), size};
}

// Sets *to, unless that is null.
void tell(vmm_error** to, std::string_view code, std::string_view message);
// The same where there may be no memory: *to is null then.
void tell_out_of_memory(vmm_error** to) noexcept;

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

// 1, or 0 with the error told.
template <typename T>
int done(const Result<T>& result, vmm_error** error) {
  if (!result) tell(error, to_string(result.error().code()), result.error().message());
  return result ? 1 : 0;
}

vmm_registers to_c(const x86::Registers& registers);
x86::Registers from_c(const vmm_registers& registers);

}  // namespace vmm::c

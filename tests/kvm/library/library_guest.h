// Machines for the tests of the library's API: a micro guest, and no more devices than it needs.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

inline constexpr std::chrono::minutes kEnough{2};
inline constexpr VcpuId kFirst{0};
inline constexpr Gpa kCounter{0x2000};

inline VmConfig flat(std::vector<std::byte> code) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = std::move(code)};
  return config;
}

// The machine, or nullptr after having skipped the test with the reason.
inline std::unique_ptr<Vm> create(VmConfig config) {
  auto vm = Vm::create(std::move(config));
  if (vm) return *std::move(vm);
  if (vm.error().code() == ErrorCode::kNoKvm) {
    [&] { GTEST_SKIP() << "needs KVM: " << vm.error().message(); }();
  } else {
    ADD_FAILURE() << vm.error().message();
  }
  return nullptr;
}

inline std::uint64_t counted(const Vm& vm) {
  return vm.memory().read<std::uint64_t>(kCounter).value();
}

// What it was, or a failure of the test.
template <typename T>
T good(Result<T> result) {
  if (result) return *std::move(result);
  ADD_FAILURE() << result.error().message();
  return {};
}

#define CREATE_OR_RETURN(vm, config) \
  const auto vm = create(config);    \
  if (!vm) return

}  // namespace vmm

// Runs a guest with a user at CPL 3 under given quirks.
#pragma once

#include <gtest/gtest.h>

#include "vmm/vm.h"

namespace vmm {

// With syscall-fixup, and with the quirk interpret-kernel on or off.
class QuirkGuest : public testing::TestWithParam<Toggle> {
 public:
  static std::string name_of(const testing::TestParamInfo<Toggle>& info) {
    return info.param == Toggle::kOn ? "Interpreted" : "InKvm";
  }

 protected:
  // Runs the guest until it says that it is done, and returns what it left at 0x2000.
  template <typename Results>
  void run(std::vector<std::byte> guest, IrqchipMode irqchip, Results& results) {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = GetParam() == Toggle::kOn ? IrqchipMode::kUser : irqchip;
    config.boot = FlatBoot{.image = std::move(guest)};
    config.quirks.push_back({.name = "syscall-fixup", .value = Toggle::kOn});
    config.quirks.push_back({.name = "interpret-kernel", .value = GetParam()});
    const auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      GTEST_SKIP() << "needs KVM with MSR filters: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(1)});
    ASSERT_TRUE(stop) << stop.error().message();
    ASSERT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail << '\n' << stop->report;
    results = (*vm)->memory().read<Results>(Gpa(0x2000)).value();
    interpreted_ = (*vm)->stats().interpreted;
  }

  std::uint64_t interpreted_ = 0;
};

}  // namespace vmm

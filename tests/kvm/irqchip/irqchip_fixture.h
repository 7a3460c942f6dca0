// What the tests of irqchips under KVM have in common: a machine in each mode, and steps that set
// chips up.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/kvm/irqchip/script_machine.h"
#include "vmm/vm.h"

namespace vmm::test {

inline constexpr std::uint32_t kIoregsel = 0xfec0'0000, kIowin = 0xfec0'0010;
inline constexpr std::uint32_t kSpuriousVector = 0xfee0'00f0;
inline constexpr std::uint32_t kLvtLint0 = 0xfee0'0350;
inline constexpr std::uint32_t kMasked = 0x1'0000, kLevel = 0x8000, kRemoteIrr = 0x4000;

class IrqchipKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  void SetUp() override {
    auto created = ScriptMachine::create(GetParam());
    if (!created) GTEST_SKIP() << created.error().message();
    machine = std::move(*created);
  }

  static std::vector<Step> entry(std::uint32_t pin, std::uint32_t low) {
    return {store(kIoregsel, 0x11 + 2 * pin), store(kIowin, 0), store(kIoregsel, 0x10 + 2 * pin),
            store(kIowin, low)};
  }
  // The boot CPU's local APIC, turned on; the PIC silent.
  static std::vector<Step> apic_on() {
    return {out(0x21, 0xff), out(0xa1, 0xff), store(kSpuriousVector, 0x1ff)};
  }
  static std::vector<Step> pic_on() {
    return {out(0x20, 0x11), out(0x21, 0x30), out(0x21, 0x04), out(0x21, 0x01),
            out(0xa0, 0x11), out(0xa1, 0x38), out(0xa1, 0x02), out(0xa1, 0x01)};
  }
  static std::vector<Step> join(std::initializer_list<std::vector<Step>> parts) {
    std::vector<Step> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  std::unique_ptr<ScriptMachine> machine;
};

// A guest that has run until it ended. No machine: the test is skipped, or has failed.
struct Ended {
  std::unique_ptr<Vm> vm = {};
  StopInfo stop = {};
};

inline Ended run_to_its_end(VmConfig config) {
  auto vm = Vm::create(std::move(config));
  if (!vm) {
    if (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported) {
      [&] { GTEST_SKIP() << "needs KVM with this irqchip: " << vm.error().message(); }();
    } else {
      ADD_FAILURE() << vm.error().message();
    }
    return {};
  }
  auto stop = (*vm)->run({.deadline = std::chrono::minutes(1)});
  if (!stop) {
    ADD_FAILURE() << stop.error().message();
    return {};
  }
  return {.vm = *std::move(vm), .stop = *std::move(stop)};
}

inline std::string mode_name(const testing::TestParamInfo<IrqchipMode>& info) {
  return info.param == IrqchipMode::kKernel  ? "kernel"
         : info.param == IrqchipMode::kSplit ? "split"
                                             : "user";
}

}  // namespace vmm::test

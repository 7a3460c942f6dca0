// Guests that run in one machine after the other: each is stopped wherever it is, and a clone goes
// on. The guest finds out whether anything was lost.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <string>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "tests/support/scratch_directory.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(alphabets);
DECLARE_GUEST(mmio_reads);
DECLARE_GUEST(smp);
DECLARE_GUEST(virtio_split);
DECLARE_GUEST(virtio_packed);

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

// The last machine, and how the guest ended in it.
struct Finish {
  std::unique_ptr<Vm> vm;
  StopInfo stop;
  int machines = 0;
};

// Where the interrupt controllers are in the first, third, ... machine, and in those between.
struct Route {
  IrqchipMode odd, even;
};

std::string route_name(const testing::TestParamInfo<Route>& info) {
  const std::string odd = test::mode_name({info.param.odd, 0});
  const std::string even = test::mode_name({info.param.even, 0});
  return odd == even ? odd : odd + "_and_" + even;
}

class Relay : public testing::TestWithParam<Route> {
 protected:
  static constexpr int kMostMachines = 6;

  VmConfig config(std::vector<std::byte> code) {
    VmConfig made;
    made.memory.size = MiB(2);
    made.irqchip = GetParam().odd;
    made.boot = FlatBoot{.image = std::move(code)};
    made.serial.output = &console_;
    made.virtio.emplace_back(VirtioRngConfig{});
    made.virtio_transport = VirtioTransport::kMmio;
    return made;
  }

  // Runs the guest `leg` at a time, in a clone each time, or from a file. An empty finish: no KVM.
  // A host that is done within the first leg gets shorter ones.
  Finish run(const VmConfig& made, std::chrono::microseconds leg, bool through_files = false) {
    for (;; leg /= 2) {
      Finish finish = run_legs(made, leg, through_files);
      if (!finish.vm || finish.machines > 0 || leg < std::chrono::microseconds(50)) return finish;
      console_.clear();
    }
  }

  Finish run_legs(VmConfig made, std::chrono::microseconds leg, bool through_files) {
    Finish finish;
    auto vm = Vm::create(std::move(made));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      [&] { GTEST_SKIP() << "needs KVM with this irqchip: " << vm.error().message(); }();
      return finish;
    }
    for (;; ++finish.machines) {
      if (!vm) {
        ADD_FAILURE() << vm.error().message();
        return finish;
      }
      finish.vm = *std::move(vm);
      const bool last = finish.machines == kMostMachines;
      auto stop = finish.vm->run({.deadline = last ? std::chrono::minutes(2) : leg});
      if (!stop) {
        ADD_FAILURE() << stop.error().message();
        return finish;
      }
      finish.stop = *std::move(stop);
      if (finish.stop.reason != StopReason::kDeadline) return finish;
      next_irqchip_ = finish.machines % 2 == 0 ? GetParam().even : GetParam().odd;
      vm = through_files ? through_file(*finish.vm) : finish.vm->clone(with_console());
      if (!vm && vm.error().code() == ErrorCode::kUnsupported &&
          GetParam().odd != GetParam().even) {
        vm = std::move(finish.vm);  // a moment that only one of the two can keep: a little later
      }
    }
  }

  std::function<Result<void>(VmConfig&)> with_console() {
    return [this](VmConfig& next) -> Result<void> {
      next.serial.output = &console_;
      next.irqchip = next_irqchip_;
      return {};
    };
  }

  Result<std::unique_ptr<Vm>> through_file(Vm& vm) {
    VMM_TRY(vm.save(scratch_.file("snapshot")));
    VmConfig next = Snapshot::config(VMM_TRY(Snapshot::open(scratch_.file("snapshot"))));
    VMM_TRY(with_console()(next));
    return Vm::create(std::move(next));
  }

  void expect_alphabets(const Finish& finish) {
    if (!finish.vm) return;
    EXPECT_EQ(finish.stop.reason, StopReason::kDebugExit) << finish.stop.detail;
    EXPECT_GT(finish.machines, 0) << "the guest was done before anything could be seen";
    std::string wanted;
    for (int i = 0; i < 200; ++i) wanted += "abcdefghijklmnopqrstuvwxyz";
    EXPECT_EQ(console_.text(), wanted);
  }

  CaptureSink console_;
  IrqchipMode next_irqchip_{};
  test::ScratchDirectory scratch_;
};

using enum IrqchipMode;
INSTANTIATE_TEST_SUITE_P(Irqchip, Relay,
                         testing::Values(Route{kKernel, kKernel}, Route{kSplit, kSplit},
                                         Route{kUser, kUser}, Route{kSplit, kUser},
                                         Route{kUser, kSplit}, Route{kSplit, kKernel},
                                         Route{kKernel, kSplit}, Route{kUser, kKernel},
                                         Route{kKernel, kUser}),
                         route_name);

TEST_P(Relay, StringOutput_goesOnInTheMiddle) {
  expect_alphabets(run(config(GUEST_CODE(alphabets)), std::chrono::microseconds(1500)));
}

TEST_P(Relay, StringOutput_goesOnFromAFile) {
  expect_alphabets(run(config(GUEST_CODE(alphabets)), std::chrono::microseconds(1500), true));
}

TEST_P(Relay, MmioReadsAndRegisters_surviveTheStop) {
  const Finish finish = run(config(GUEST_CODE(mmio_reads)), std::chrono::milliseconds(3));
  if (!finish.vm) return;
  EXPECT_EQ(finish.stop.reason, StopReason::kDebugExit) << finish.stop.detail << finish.stop.report;
  EXPECT_GT(finish.machines, 0);
  const GuestMemory& memory = finish.vm->memory();
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(0x2000)).value(), 3000U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x2008)).value(), 0x1122334455667788U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x2010)).value(), 0x1122334455667788U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x2018)).value(), 0x123456U);
}

// The driver polls: what the device does not finish leaves it waiting for ever.
TEST_P(Relay, VirtioRequests_areAllAnswered) {
  for (const bool packed : {false, true}) {
    const Finish finish = run(config(packed ? GUEST_CODE(virtio_packed) : GUEST_CODE(virtio_split)),
                              std::chrono::milliseconds(1));
    if (!finish.vm) return;
    EXPECT_EQ(finish.stop.reason, StopReason::kDebugExit) << finish.stop.detail;
    EXPECT_EQ(finish.vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), 100U);
    EXPECT_EQ(finish.vm->memory().read<std::uint32_t>(Gpa(0x2010)).value(), 6400U);
  }
}

// Interrupts by ID, shorthand and logical destination, NMIs, a CPU that waits for its start.
TEST_P(Relay, CpusThatInterruptEachOther_loseNothing) {
  constexpr std::size_t kCpus = 4;
  using Counts = std::array<std::uint32_t, kCpus>;
  struct Results {
    Counts starts, fixed, nmis, lowest, echoes, storm;
    std::uint32_t fixed_in_init;
  };
  VmConfig made = config(GUEST_CODE(smp));
  made.cpus.count = kCpus;
  const Finish finish = run(made, std::chrono::milliseconds(10));
  if (!finish.vm) return;
  EXPECT_EQ(finish.stop.reason, StopReason::kDebugExit) << finish.stop.detail << finish.stop.report;
  EXPECT_GT(finish.machines, 0);
  const auto results = finish.vm->memory().read<Results>(Gpa(0x2000)).value();
  EXPECT_EQ(results.starts, (Counts{1, 1, 2, 1}));
  EXPECT_EQ(results.fixed, (Counts{0, 4, 4, 5}));
  EXPECT_EQ(results.nmis, (Counts{0, 1, 1, 1}));
  EXPECT_EQ(std::reduce(results.lowest.begin(), results.lowest.end()), 30U);
  EXPECT_EQ(results.echoes[0], 100U);
  EXPECT_EQ(results.echoes[1], 100U);
}

}  // namespace
}  // namespace vmm

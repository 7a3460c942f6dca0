// The facade, exercised by micro guests through the public headers only.
#include "vmm/vm.h"

#include <gtest/gtest.h>

#include <ctime>
#include <memory>
#include <string>
#include <thread>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"

namespace vmm {
namespace {

DECLARE_GUEST(hello);
DECLARE_GUEST(debug_exit);
DECLARE_GUEST(triple_fault);
DECLARE_GUEST(spin);
DECLARE_GUEST(unclaimed);
DECLARE_GUEST(power_off);
DECLARE_GUEST(i8042_reset);
DECLARE_GUEST(panic_then_reset);
DECLARE_GUEST(sleep_for_ever);
DECLARE_GUEST(echo);
DECLARE_GUEST(registers);
DECLARE_GUEST(real_mode);
DECLARE_GUEST(protected_mode);
DECLARE_GUEST(platform);

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

const RunOptions kEnough{.deadline = std::chrono::minutes(2)};
constexpr VcpuId kFirst{0};

class VmTest : public testing::Test {
 protected:
  VmConfig flat(std::vector<std::byte> code) {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = IrqchipMode::kNone;
    config.boot = FlatBoot{.image = std::move(code)};
    config.serial.output = &console_;
    return config;
  }

  // The machine, or nullptr after having skipped the test with the reason.
  static std::unique_ptr<Vm> create(VmConfig config) {
    auto vm = Vm::create(std::move(config));
    if (vm) return *std::move(vm);
    if (vm.error().code() == ErrorCode::kNoKvm) {
      [&] { GTEST_SKIP() << "needs KVM: " << vm.error().message(); }();
    } else {
      ADD_FAILURE() << vm.error().message();
    }
    return nullptr;
  }

  // Runs a machine made of `config` to its end.
  static StopInfo run(VmConfig config) {
    const auto vm = create(std::move(config));
    if (!vm) return {};
    return run(*vm);
  }
  static StopInfo run(Vm& vm, const RunOptions& options = kEnough) {
    auto stop = vm.run(options);
    if (stop) return *std::move(stop);
    ADD_FAILURE() << stop.error().message();
    return {};
  }

  CaptureSink console_;
};

#define CREATE_OR_RETURN(vm, config) \
  const auto vm = create(config);    \
  if (!vm) return

TEST_F(VmTest, GuestPrintsHelloAndHalts) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(hello)));
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kHalted) << stop.detail;
  EXPECT_EQ(console_.text(), "hello\n");
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), 0x600dcafeU);
  EXPECT_EQ(vm->stats().unclaimed, 0U);
}

TEST_F(VmTest, PreparedKvm_isForOneMachine) {
  VmConfig config = flat(GUEST_CODE(hello));
  config.early_kvm = Vm::prepare_kvm();
  CREATE_OR_RETURN(vm, config);
  EXPECT_EQ(run(*vm).reason, StopReason::kHalted);
  EXPECT_EQ(console_.text(), "hello\n");
  const auto second = Vm::create(config);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kBadState) << second.error().message();
}

TEST_F(VmTest, PreparedKvm_mayGoUnused) { EXPECT_NE(Vm::prepare_kvm(), nullptr); }

TEST_F(VmTest, DebugExit_firstValueWins) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(debug_exit)));
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kDebugExit);
  EXPECT_EQ(stop.value, 0x2aU);
}

TEST_F(VmTest, DebugExit_withoutThePortIsUnclaimed) {
  VmConfig config = flat(GUEST_CODE(debug_exit));
  config.debug_exit_port.reset();
  CREATE_OR_RETURN(vm, std::move(config));
  const StopInfo stop = run(*vm, {.deadline = std::chrono::milliseconds(300)});
  EXPECT_EQ(stop.reason, StopReason::kDeadline);
  EXPECT_EQ(vm->stats().unclaimed, 2U);
}

TEST_F(VmTest, TripleFault_isReportedWithRegisters) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(triple_fault)));
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kTripleFault) << stop.detail;
  EXPECT_NE(stop.report.find("rip"), std::string::npos) << stop.report;
}

TEST_F(VmTest, Deadline_pausesAndTheGuestCanRunOn) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  EXPECT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(50)}).reason, StopReason::kDeadline);
  const auto before = vm->memory().read<std::uint64_t>(Gpa(0x2000)).value();
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x2000)).value(), before);
  EXPECT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(50)}).reason, StopReason::kDeadline);
  EXPECT_GT(vm->memory().read<std::uint64_t>(Gpa(0x2000)).value(), before);
}

TEST_F(VmTest, Cancel_endsARunFromAnotherThread) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  std::thread canceller([&vm] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    vm->cancel();
  });
  EXPECT_EQ(run(*vm).reason, StopReason::kCancelled);
  canceller.join();
  EXPECT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(20)}).reason, StopReason::kDeadline);
}

TEST_F(VmTest, OnStarted_isCalledOnceInEachRun) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  int calls = 0;
  const RunOptions options{.deadline = std::chrono::minutes(2), .on_started = [&] {
                             ++calls;
                             vm->cancel();
                           }};
  EXPECT_EQ(run(*vm, options).reason, StopReason::kCancelled);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(run(*vm, options).reason, StopReason::kCancelled);
  EXPECT_EQ(calls, 2);
}

TEST_F(VmTest, Cancel_beforeARunEndsIt) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  vm->cancel();
  EXPECT_EQ(run(*vm).reason, StopReason::kCancelled);
}

TEST_F(VmTest, UnclaimedAccesses_readAllOnesAndAreCounted) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(unclaimed)));
  EXPECT_EQ(run(*vm).reason, StopReason::kDebugExit);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), 0xffffffffU);
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x2008)).value(), ~0ULL);
  EXPECT_EQ(vm->stats().unclaimed, 4U);
}

TEST_F(VmTest, AcpiSoftOff_isAPowerOff) {
  EXPECT_EQ(run(flat(GUEST_CODE(power_off))).reason, StopReason::kPowerOff);
}

TEST_F(VmTest, KeyboardControllerPulse_isAReset) {
  EXPECT_EQ(run(flat(GUEST_CODE(i8042_reset))).reason, StopReason::kReset);
}

TEST_F(VmTest, ResetAfterAPanicMessage_isAPanic) {
  EXPECT_EQ(run(flat(GUEST_CODE(panic_then_reset))).reason, StopReason::kGuestPanic);
}

TEST_F(VmTest, SerialInput_reachesTheGuest) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(echo)));
  std::string input = "HAL.";
  std::thread typist([&] {
    // The queue takes what fits and says so: the rest is offered again.
    for (auto rest = std::as_bytes(std::span(input)); !rest.empty();) {
      rest = rest.subspan(vm->push_serial_input(rest));
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(run(*vm).reason, StopReason::kDebugExit);
  typist.join();
  EXPECT_EQ(console_.text(), "IBM");
}

TEST_F(VmTest, Registers_areThoseBehindTheStoppingInstruction) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(registers)));
  ASSERT_EQ(run(*vm).reason, StopReason::kDebugExit);
  const auto registers = vm->registers(kFirst);
  ASSERT_TRUE(registers) << registers.error().message();
  EXPECT_EQ(registers->gpr[x86::kRax], 0x1122334455667788U);
  EXPECT_EQ(registers->gpr[x86::kR15], 0x1122334455667788U);
  const auto system = vm->system_registers(kFirst);
  ASSERT_TRUE(system);
  EXPECT_TRUE(system->code_is_64bit());
}

TEST_F(VmTest, SetRegisters_movesTheGuest) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(spin)));
  EXPECT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(20)}).reason, StopReason::kDeadline);
  // The first instruction of the image again, with another accumulator: nothing else may have
  // changed.
  x86::Registers registers = vm->registers(kFirst).value();
  registers.gpr[x86::kRbx] = 0xb0b;
  ASSERT_TRUE(vm->set_registers(kFirst, registers));
  EXPECT_EQ(vm->registers(kFirst).value().gpr[x86::kRbx], 0xb0bU);
  EXPECT_FALSE(vm->registers(VcpuId{1}));
}

TEST_F(VmTest, FlatImage_startsInRealMode) {
  VmConfig config = flat(GUEST_CODE(real_mode));
  std::get<FlatBoot>(config.boot).mode = FlatMode::kReal;
  EXPECT_EQ(run(std::move(config)).reason, StopReason::kDebugExit);
  EXPECT_EQ(console_.text(), "r");
}

TEST_F(VmTest, FlatImage_startsInProtectedMode) {
  VmConfig config = flat(GUEST_CODE(protected_mode));
  std::get<FlatBoot>(config.boot).mode = FlatMode::kProtected;
  EXPECT_EQ(run(std::move(config)).reason, StopReason::kDebugExit);
  EXPECT_EQ(console_.text(), "p");
}

TEST_F(VmTest, Platform_hasWhatTestKernelsLookFor) {
  VmConfig config = flat(GUEST_CODE(platform));
  config.test_device = true;
  config.fw_cfg = {{.name = "opt/text", .text = "hello"}};
  CREATE_OR_RETURN(vm, std::move(config));
  EXPECT_EQ(run(*vm).reason, StopReason::kDebugExit);
  EXPECT_EQ(console_.text(), "QEMUhello");
  const auto word = [&](std::uint64_t at) {
    return vm->memory().read<std::uint32_t>(Gpa(at)).value();
  };
  EXPECT_EQ(word(0x2000), 0x00081b36U);
  EXPECT_EQ(word(0x2004), 0x00081b36U);
  EXPECT_EQ(word(0x2008), 0x12345678U);
  EXPECT_EQ(word(0x200c), 0x600dcafeU);
  EXPECT_EQ(word(0x2010), 0x5eed5eedU);
  EXPECT_EQ(vm->stats().unclaimed, 0U);
}

TEST_F(VmTest, FwCfg_refusesAFileThatIsNotThere) {
  VmConfig config = flat(GUEST_CODE(hello));
  config.fw_cfg = {{.name = "opt/file", .file = "/no/such/file"}};
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  EXPECT_TRUE(vm.error().code() == ErrorCode::kBadKernel || vm.error().code() == ErrorCode::kNoKvm);
}

TEST_F(VmTest, TwoMachines_inOneProcessKnowNothingOfEachOther) {
  CaptureSink other;
  VmConfig second = flat(GUEST_CODE(echo));
  second.serial.output = &other;
  CREATE_OR_RETURN(a, flat(GUEST_CODE(hello)));
  CREATE_OR_RETURN(b, std::move(second));
  const std::string input = "a.";
  EXPECT_EQ(b->push_serial_input(std::as_bytes(std::span(input).first(0))), 0U);
  std::thread thread([&] { EXPECT_EQ(run(*a).reason, StopReason::kHalted); });
  std::thread typist([&] {
    for (auto rest = std::as_bytes(std::span(input)); !rest.empty();) {
      rest = rest.subspan(b->push_serial_input(rest));
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(run(*b).reason, StopReason::kDebugExit);
  thread.join();
  typist.join();
  EXPECT_EQ(console_.text(), "hello\n");
  EXPECT_EQ(other.text(), "b");
}

// Whoever plays the interrupt controllers.
class VmIrqchips : public VmTest, public testing::WithParamInterface<IrqchipMode> {
 protected:
  VmConfig builtin(std::uint32_t cpus, const std::string& cmdline) {
    VmConfig config;
    config.memory.size = MiB(16);
    config.cpus.count = cpus;
    config.irqchip = GetParam();
    config.boot = BuiltinGuest{.cmdline = cmdline};
    config.serial.output = &console_;
    return config;
  }
};
INSTANTIATE_TEST_SUITE_P(Vm, VmIrqchips,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         [](const auto& mode) {
                           return mode.param == IrqchipMode::kKernel  ? "kernel"
                                  : mode.param == IrqchipMode::kSplit ? "split"
                                                                      : "user";
                         });

TEST_P(VmIrqchips, BuiltinGuest_bringsUpFourCpusAndIsWokenThroughTheIoApic) {
  CREATE_OR_RETURN(vm, builtin(4, "off"));
  EXPECT_EQ(run(*vm).reason, StopReason::kPowerOff) << console_.text();
  EXPECT_NE(console_.text().find("4 of 4 up"), std::string::npos) << console_.text();
  EXPECT_NE(console_.text().find("COM1 wakes through the I/O APIC"), std::string::npos)
      << console_.text();
}

TEST_P(VmIrqchips, SixtyFourCpus_areStarted) {
  CREATE_OR_RETURN(vm, builtin(64, "off"));
  EXPECT_EQ(run(*vm).reason, StopReason::kPowerOff) << console_.text();
  EXPECT_NE(console_.text().find("64 of 64 up"), std::string::npos) << console_.text();
}

TEST_P(VmIrqchips, SleepForEver_isNoticed) {
  VmConfig config = flat(GUEST_CODE(sleep_for_ever));
  config.irqchip = GetParam();
  EXPECT_EQ(run(std::move(config)).reason, StopReason::kHalted);
}

TEST_P(VmIrqchips, HaltedGuest_costsNothingAndAnswers) {
  CREATE_OR_RETURN(vm, builtin(2, ""));
  while (console_.text().find("vmm> ") == std::string::npos) {
    ASSERT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(50)}).reason, StopReason::kDeadline);
  }
  const std::clock_t before = std::clock();
  ASSERT_EQ(run(*vm, {.deadline = std::chrono::milliseconds(400)}).reason, StopReason::kDeadline);
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 10);  // of this process, all threads
  const std::string input = "off\n";
  vm->push_serial_input(std::as_bytes(std::span(input)));
  EXPECT_EQ(run(*vm).reason, StopReason::kPowerOff) << console_.text();
}

TEST_F(VmTest, MemoryAboveTheHole_isInTheMap) {
  VmConfig config;
  config.memory.size = GiB(5);
  config.boot = BuiltinGuest{.cmdline = "off"};
  config.serial.output = &console_;
  CREATE_OR_RETURN(vm, std::move(config));
  EXPECT_EQ(run(*vm).reason, StopReason::kPowerOff) << console_.text();
  EXPECT_NE(console_.text().find("000100000000-00017fffffff usable"), std::string::npos)
      << console_.text();
  EXPECT_EQ(vm->memory().size(), GiB(5));
}

TEST_F(VmTest, Preallocation_tellsItsProgressToTheEnd) {
  VmConfig config = flat(GUEST_CODE(hello));
  config.memory.size = MiB(96);
  config.memory.preallocate = true;
  std::uint64_t last = 0;
  config.memory.on_progress = [&last](std::uint64_t done, std::uint64_t all) {
    EXPECT_LE(last, done);
    EXPECT_EQ(all, MiB(96));
    last = done;
  };
  CREATE_OR_RETURN(vm, std::move(config));
  EXPECT_EQ(last, MiB(96));
}

TEST_F(VmTest, Balloon_isToldItsSizeAndItsStatus) {
  VmConfig config = flat(GUEST_CODE(hello));
  config.virtio.emplace_back(VirtioBalloonConfig{.size = MiB(1)});
  CREATE_OR_RETURN(vm, std::move(config));
  EXPECT_EQ(vm->status().balloon.value().target, MiB(1));
  EXPECT_TRUE(vm->set_balloon(KiB(512)));
  const auto refused = vm->set_balloon(MiB(3));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kBadConfig);
  const VmStatus status = vm->status();
  EXPECT_EQ(status.balloon.value().target, KiB(512));
  EXPECT_EQ(status.balloon.value().actual, 0U);
  EXPECT_EQ(status.memory, MiB(2));
  EXPECT_EQ(status.cpus, 1U);
  EXPECT_FALSE(status.running);
  EXPECT_EQ(status.broken_devices, 0U);
}

TEST_F(VmTest, DevicesThatAreNotThere_areNamed) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(hello)));
  EXPECT_EQ(vm->set_balloon(0).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(vm->set_memory(MiB(4)).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(vm->refresh_disk("disk0").error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(vm->set_link("net0", false).error().code(), ErrorCode::kOutOfRange);
  EXPECT_FALSE(vm->status().balloon);
}

TEST(VmCreate, ReportsAllProblemsAtOnce) {
  VmConfig config;
  config.memory.size = KiB(5) + 1;
  config.cpus.count = 0;
  config.boot = FlatBoot{};
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code(), ErrorCode::kBadConfig);
  const std::string text = vm.error().message();
  EXPECT_NE(text.find("too small"), std::string::npos) << text;
  EXPECT_NE(text.find("0 CPUs"), std::string::npos) << text;
  EXPECT_NE(text.find("is empty"), std::string::npos) << text;
}

TEST(VmCreate, RefusesMoreMemoryThanTheHostHas) {
  VmConfig config;
  config.memory.size = std::uint64_t{1} << 45;
  config.boot = FlatBoot{.image = {std::byte{0xf4}}};
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  if (vm.error().code() == ErrorCode::kNoKvm) GTEST_SKIP() << "needs KVM: " << vm.error().message();
  EXPECT_EQ(vm.error().code(), ErrorCode::kResource);
  EXPECT_NE(vm.error().message().find("32 TiB"), std::string::npos) << vm.error().message();
}

TEST(VmCreate, RefusesQuirksThatDoNotExist) {
  VmConfig config;
  config.quirks.push_back({.name = "no-such-quirk", .value = Toggle::kOn});
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  if (vm.error().code() == ErrorCode::kNoKvm) GTEST_SKIP() << "needs KVM: " << vm.error().message();
  EXPECT_NE(vm.error().message().find("no-such-quirk"), std::string::npos) << vm.error().message();
}

}  // namespace
}  // namespace vmm

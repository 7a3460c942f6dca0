// What a stop tells of itself.
#include <string>

#include "devices/capture_sink.h"
#include "tests/kvm/library/library_guest.h"

namespace vmm {
namespace {

DECLARE_GUEST(calls);
DECLARE_GUEST(talk);

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Describe, AnEndHasRegistersInstructionAndConsole) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  ASSERT_EQ(stop.reason, StopReason::kHalted);
  EXPECT_TRUE(has(stop.state, "RIP")) << stop.state;
  EXPECT_TRUE(has(stop.state, "hlt")) << stop.state;
  EXPECT_EQ(stop.console, "");
  EXPECT_EQ(::testing::PrintToString(stop), to_text(stop));
}

TEST(Describe, AStopToGoOnFromIsDescribedWhenAskedFor) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  const UntilResult result = good(vm->run_until({UntilConsole{"login: "}}, kEnough));
  ASSERT_TRUE(result);
  EXPECT_EQ(result.stop.state, "");
  EXPECT_EQ(result.stop.console, "");
  const std::string text = vm->describe(result.stop);
  EXPECT_TRUE(has(text, "condition met")) << text;
  EXPECT_TRUE(has(text, "RIP")) << text;
  EXPECT_TRUE(has(text, "the end of the console:\none\ntwo 22\nlogin: ")) << text;
}

TEST(Describe, ACrashHasItsReportOnce) {
  VmConfig config = flat({std::byte{0x0f}, std::byte{0x0b}});  // UD2, and no IDT
  CaptureSink console;
  config.serial.output = &console;
  CREATE_OR_RETURN(vm, config);
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kTripleFault) << stop.detail;
  EXPECT_TRUE(has(stop.report, "rip"));
  EXPECT_EQ(stop.state, "");
}

TEST(SeededRng, ItsSeedIsTheSnapshots) {
  VmConfig config = flat(GUEST_CODE(calls));
  config.virtio = {VirtioRngConfig{.seed = 42}, VirtioRngConfig{}};
  CREATE_OR_RETURN(vm, config);
  const auto snapshot = good(vm->snapshot());
  ASSERT_NE(snapshot, nullptr);
  const VmConfig again = Snapshot::config(snapshot);
  ASSERT_EQ(again.virtio.size(), 2U);
  EXPECT_EQ(std::get<VirtioRngConfig>(again.virtio[0]).seed, 42U);
  EXPECT_EQ(std::get<VirtioRngConfig>(again.virtio[1]).seed, std::nullopt);
}

}  // namespace
}  // namespace vmm

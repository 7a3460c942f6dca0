// The ports of a console device through the facade.
#include <gtest/gtest.h>

#include <array>
#include <chrono>

#include "devices/capture_sink.h"
#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(console);

TEST(ConsolePorts, GuestWithoutADriver_canSaySomethingAndHearNothing) {
  CaptureSink screen, agent;
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = guest_code(guest_console_begin, guest_console_end)};
  config.virtio.emplace_back(
      VirtioConsoleConfig{.ports = {{.name = "agent", .output = &agent}, {.output = &screen}}});
  config.virtio_transport = VirtioTransport::kMmio;
  auto created = Vm::create(std::move(config));
  if (!created && created.error().code() == ErrorCode::kNoKvm) {
    GTEST_SKIP() << "needs KVM: " << created.error().message();
  }
  ASSERT_TRUE(created) << created.error().message();
  Vm& vm = **created;
  vm.set_port_size(1, {.columns = 80, .rows = 25});
  const auto stop = vm.run({.deadline = std::chrono::minutes(2)});
  ASSERT_TRUE(stop) << stop.error().message();
  EXPECT_EQ(stop->value, 7U) << stop->detail;
  EXPECT_EQ(screen.text(), "hi");
  EXPECT_EQ(agent.text(), "");
  for (const std::size_t port : {0U, 1U}) {
    EXPECT_EQ(vm.push_port_input(port, std::array{std::byte{'x'}}), 0U);
    EXPECT_NE(vm.port_input_space(port), nullptr);
    vm.port_output_ready(port);
  }
  EXPECT_EQ(vm.push_port_input(2, std::array{std::byte{'x'}}), 0U);
  EXPECT_EQ(vm.port_input_space(2), nullptr);
  vm.set_port_open(2, false);
}

}  // namespace
}  // namespace vmm

// Devices of the embedding program: ports, memory, an interrupt line, and what is refused.
#include "vmm/embedder_device.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "devices/function_device.h"
#include "tests/kvm/library/library_guest.h"

namespace vmm {
namespace {

DECLARE_GUEST(line);
DECLARE_GUEST(registers_in_memory);
DECLARE_GUEST(ports);

EmbedderDevice device_of(std::string id, FunctionDevice::Handlers handlers) {
  return {.make = [id, handlers](const DeviceHost&) {
    return std::make_unique<FunctionDevice>(id, handlers);
  }};
}

TEST(EmbedderDevice, InMemory_isReadAndWritten) {
  VmConfig config = flat(GUEST_CODE(registers_in_memory));
  std::uint64_t written = 0, at = 0;
  EmbedderDevice device = device_of(
      "own", {.read = [](const IoAccess& access, std::size_t) { return access.offset + 0x100; },
              .write =
                  [&](const IoAccess& access, std::size_t, std::uint64_t value) {
                    at = access.offset;
                    written = value;
                  }});
  device.mmio.push_back({.base = 0xfed40000, .size = 0x1000});
  config.devices.push_back(device);
  CREATE_OR_RETURN(vm, config);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(at, 8U);
  EXPECT_EQ(written, 0x1234U);
  EXPECT_EQ(counted(*vm), 0x110U);
  EXPECT_EQ(vm->stats().unclaimed, 0U);
}

// Where a thread's two ways to the guest and back are spared: one CPU, and nobody to be told that
// it has begun.
std::thread::id thread_of_handlers(RunOptions options, bool another_first = false) {
  VmConfig config = flat(GUEST_CODE(registers_in_memory));
  std::thread::id where;
  EmbedderDevice device =
      device_of("own", {.read =
                            [&where](const IoAccess&, std::size_t) {
                              where = std::this_thread::get_id();
                              return 0;
                            },
                        .write = [](const IoAccess&, std::size_t, std::uint64_t) {}});
  device.mmio.push_back({.base = 0xfed40000, .size = 0x1000});
  config.devices.push_back(device);
  const auto vm = create(config);
  if (!vm) return where;
  if (another_first) {
    std::thread([&vm] { (void)vm->run({.deadline = std::chrono::nanoseconds(0)}); }).join();
  }
  EXPECT_EQ(good(vm->run(options)).reason, StopReason::kHalted);
  EXPECT_NE(where, std::thread::id()) << "nobody has read the device";
  return where;
}

TEST(EmbedderDevice, OfAMachineWithOneCpu_isUsedByTheThreadThatRunsIt) {
  const std::thread::id where = thread_of_handlers({.deadline = kEnough});
  if (::testing::Test::IsSkipped()) return;
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST(EmbedderDevice, WhereTheBeginIsTold_isUsedByTheCpusThread) {
  const std::thread::id where = thread_of_handlers({.deadline = kEnough, .on_started = [] {}});
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST(EmbedderDevice, OfAMachineThatAnotherThreadRanFirst_isUsedByTheCpusThread) {
  const std::thread::id where = thread_of_handlers({.deadline = kEnough}, true);
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST(EmbedderDevice, RaisesItsInterruptLine) {
  VmConfig config = flat(GUEST_CODE(line));
  config.irqchip = IrqchipMode::kAuto;
  config.devices.push_back(
      {.ports = {{.base = 0x500, .size = 1}}, .irqs = {5}, .make = [](const DeviceHost& host) {
         return std::make_unique<FunctionDevice>(
             "own", FunctionDevice::Handlers{
                        .write = [line = host.irqs.at(0)](const IoAccess&, std::size_t,
                                                          std::uint64_t value) mutable {
                          line.set_level(value != 0);
                        }});
       }});
  CREATE_OR_RETURN(vm, config);
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail;
  EXPECT_EQ(stop.value & (1U << 5), 1U << 5);
}

std::string refusal(const EmbedderDevice& device) {
  VmConfig config = flat(GUEST_CODE(ports));
  config.devices.push_back(device);
  const auto vm = Vm::create(std::move(config));
  if (vm) return "accepted";
  return vm.error().message();
}

TEST(EmbedderDevice, WhatCannotBeIsRefused) {
  if (create(flat(GUEST_CODE(ports))) == nullptr) return;
  EXPECT_NE(refusal({}).find("no function to make it"), std::string::npos);

  EmbedderDevice wrong_line = device_of("own", {});
  wrong_line.irqs = {24};
  EXPECT_NE(refusal(wrong_line).find("choose 0 to 23"), std::string::npos);

  EXPECT_NE(refusal(device_of("uart0", {})).find("'uart0'"), std::string::npos);

  EmbedderDevice on_com1 = device_of("own", {});
  on_com1.ports.push_back({.base = 0x3fa, .size = 1});
  EXPECT_NE(refusal(on_com1).find("Put the device 'own' at port 0x3fa"), std::string::npos);

  EmbedderDevice on_ram = device_of("own", {});
  on_ram.mmio.push_back({.base = 0x1ff000, .size = 0x2000});
  EXPECT_NE(refusal(on_ram).find("where RAM is"), std::string::npos);

  const EmbedderDevice fails{.make = [](const DeviceHost&) -> Result<std::unique_ptr<Device>> {
    return fail(ErrorCode::kResource, "out of paint");
  }};
  EXPECT_NE(refusal(fails).find("out of paint"), std::string::npos);
}

TEST(EmbedderDevice, WithoutSavedStateNoSnapshot) {
  VmConfig config = flat(GUEST_CODE(ports));
  config.devices.push_back(device_of("own", {}));
  CREATE_OR_RETURN(vm, config);
  const auto snapshot = vm->snapshot();
  ASSERT_FALSE(snapshot);
  EXPECT_EQ(snapshot.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(snapshot.error().message().find("'own'"), std::string::npos);
}

}  // namespace
}  // namespace vmm

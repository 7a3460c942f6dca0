// PCI functions of the embedding program: header, BARs, both kinds of interrupts, saved state.
#include <future>
#include <string>
#include <thread>

#include "base/le.h"
#include "devices/pci/pci_function_device.h"
#include "tests/kvm/library/library_guest.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

// 00:01.0 in the window of configuration space (docs/pci.md): who it is, BAR 0, and its wire, which
// the second PIC sees as line 11.
VMM_GUEST_CODE(kRegistersAndWire, R"(
    mov $0xe0008000, %ebx
    mov (%rbx), %eax
    mov %eax, 0x2000
    mov 0x10(%rbx), %esi
    and $-16, %esi
    movl $0x1234, 8(%rsi)
    mov 16(%rsi), %eax
    mov %eax, 0x2004
    movl $1, (%rsi)
    mov $0x0a, %al
    out %al, $0xa0
    in $0xa0, %al
    mov %al, 0x2008
    mov 4(%rbx), %eax
    mov %eax, 0x2010
    movl $0, (%rsi)
    mov 4(%rbx), %eax
    mov %eax, 0x2014
    mov 0x40(%rbx), %eax
    mov %eax, 0x200c
    out %al, $0xf4
)");

// Vector 1 of MSI-X, in BAR 1, is to be interrupt 0x45; asks for it and waits until its local APIC
// has it.
VMM_GUEST_CODE(kMessage, R"(
    mov $0xe0008000, %ebx
    movw $6, 4(%rbx)
    movw $0x8000, 0x42(%rbx)
    mov 0x14(%rbx), %edi
    and $-16, %edi
    movl $0xfee00000, 16(%rdi)
    movl $0, 20(%rdi)
    movl $0x45, 24(%rdi)
    movl $0, 28(%rdi)
    mov $0xfee00000, %edx
    movl $0x1ff, 0xf0(%rdx)
    mov 0x10(%rbx), %esi
    and $-16, %esi
    movl $1, 4(%rsi)
  1:
    mov 0x220(%rdx), %eax
    test $0x20, %eax
    jz 1b
    out %al, $0xf4
)");

// Writes 1, 2, 3, ... to the function.
VMM_GUEST_CODE(kCounting, R"(
    mov $0xe0008000, %ebx
    mov 0x10(%rbx), %esi
    and $-16, %esi
  1:
    inc %eax
    mov %eax, (%rsi)
    jmp 1b
)");

constexpr pci::Identity kIdentity{.vendor = 0x1234, .device = 0x5678, .class_code = 0xff'0000};

// A function with one BAR.
PciFunctionDevice::Options one_bar(PciFunctionDevice::Bar bar) {
  PciFunctionDevice::Options options{.identity = kIdentity};
  options.bars.push_back(std::move(bar));
  return options;
}

EmbedderDevice function(PciFunctionDevice::Options options) {
  return {.pci = true,
          .make = [options](const DeviceHost& host) -> Result<std::unique_ptr<Device>> {
            return VMM_TRY(PciFunctionDevice::create("own", options, *host.pci));
          }};
}

VmConfig machine_with(const testing::GuestCode& code, EmbedderDevice device,
                      IrqchipMode irqchip = IrqchipMode::kAuto) {
  VmConfig config = flat(code.image());
  config.irqchip = irqchip;
  config.devices.push_back(std::move(device));
  return config;
}

std::uint32_t word(const Vm& vm, std::uint64_t address) {
  return vm.memory().read<std::uint32_t>(Gpa(address)).value();
}

TEST(OwnPciFunction, HasRegistersAndAWire) {
  std::uint64_t written = 0;
  PciFunctionDevice::Options options = one_bar(
      {.read = [](PciFunctionDevice&, const IoAccess& access,
                  std::size_t) { return access.offset + 0x100; },
       .write =
           [&](PciFunctionDevice& self, const IoAccess& access, std::size_t, std::uint64_t value) {
             if (access.offset == 0) self.set_intx(value != 0);
             if (access.offset == 8) written = value;
           }});
  options.intx = true;
  options.capabilities.push_back({.bytes = {4, 0xab}});
  CREATE_OR_RETURN(vm, machine_with(kRegistersAndWire, function(options)));
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail;
  EXPECT_EQ(word(*vm, 0x2000), 0x5678'1234U);
  EXPECT_EQ(written, 0x1234U);
  EXPECT_EQ(word(*vm, 0x2004), 0x110U);
  constexpr std::uint32_t kLine11 = 1U << (11 - 8);
  EXPECT_EQ(word(*vm, 0x2008) & kLine11, kLine11);
  constexpr std::uint32_t kStatusBit = std::uint32_t{pci::kInterruptStatus} << 16;
  EXPECT_EQ(word(*vm, 0x2010) & kStatusBit, kStatusBit) << "up";
  EXPECT_EQ(word(*vm, 0x2014) & kStatusBit, 0U) << "down again";
  EXPECT_EQ(word(*vm, 0x200c), 0xab04'0009U) << "its capability";
  EXPECT_EQ(vm->stats().unclaimed, 0U);
}

class OwnPciFunctionOn : public ::testing::TestWithParam<IrqchipMode> {};

TEST_P(OwnPciFunctionOn, SendsMessages) {
  PciFunctionDevice::Options options =
      one_bar({.write = [](PciFunctionDevice& self, const IoAccess& access, std::size_t,
                           std::uint64_t value) {
        if (access.offset == 4) self.interrupt(static_cast<std::size_t>(value));
      }});
  options.vectors = 2;
  CREATE_OR_RETURN(vm, machine_with(kMessage, function(options), GetParam()));
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kDebugExit);
}

INSTANTIATE_TEST_SUITE_P(Irqchips, OwnPciFunctionOn,
                         ::testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                           IrqchipMode::kUser));

TEST(OwnPciFunction, InterruptsFromAThreadOfTheProgram) {
  std::promise<void> asked;
  PciFunctionDevice::Options options =
      one_bar({.write = [&](PciFunctionDevice&, const IoAccess&, std::size_t, std::uint64_t) {
        asked.set_value();
      }});
  options.vectors = 2;
  PciFunctionDevice* made = nullptr;
  std::optional<DeviceRef> ref;
  EmbedderDevice device{.pci = true,
                        .make = [&](const DeviceHost& host) -> Result<std::unique_ptr<Device>> {
                          auto own = VMM_TRY(PciFunctionDevice::create("own", options, *host.pci));
                          made = own.get();
                          return own;
                        },
                        .attached = [&](const DeviceRef& where) { ref = where; }};
  CREATE_OR_RETURN(vm, machine_with(kMessage, device));
  std::thread worker([&] {
    asked.get_future().wait();
    ref->with([&](Device&) { made->interrupt(1); });
  });
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kDebugExit);
  worker.join();
}

TEST(OwnPciFunction, StateOfItsFunctionsIsInSnapshots) {
  std::uint32_t seen = 0;
  PciFunctionDevice::Options options =
      one_bar({.write = [&](PciFunctionDevice&, const IoAccess&, std::size_t, std::uint64_t value) {
        seen = static_cast<std::uint32_t>(value);
      }});
  options.state = {.save = [&] { return std::vector{static_cast<std::byte>(seen)}; },
                   .restore = [&](std::span<const std::byte> bytes) -> Result<void> {
                     if (bytes.size() != 1) return fail(ErrorCode::kBadState, "not one byte");
                     seen = std::to_integer<std::uint32_t>(bytes[0]);
                     return {};
                   }};
  CREATE_OR_RETURN(vm, machine_with(kCounting, function(options)));
  const std::vector<Condition> ten{UntilExit{.kind = "mmio"}};
  while (seen < 10) ASSERT_TRUE(good(vm->run_until(ten, kEnough)));
  const auto snapshot = good(vm->snapshot());
  ASSERT_NE(snapshot, nullptr);
  while (seen < 20) ASSERT_TRUE(good(vm->run_until(ten, kEnough)));
  ASSERT_TRUE(vm->reset_to(snapshot));
  EXPECT_EQ(seen, 10U);
  while (seen == 10) ASSERT_TRUE(good(vm->run_until(ten, kEnough)));
  EXPECT_EQ(seen, 11U);
}

TEST(OwnPciFunction, WithoutStateNoSnapshot) {
  CREATE_OR_RETURN(vm, machine_with(kCounting, function(one_bar({}))));
  const auto snapshot = vm->snapshot();
  ASSERT_FALSE(snapshot);
  EXPECT_NE(snapshot.error().message().find("'own' cannot be saved"), std::string::npos)
      << snapshot.error().message();
}

TEST(OwnPciFunction, WhatCannotBeIsRefused) {
  if (create(machine_with(kCounting, function(one_bar({})))) == nullptr) return;
  const auto refusal = [](PciFunctionDevice::Options options) {
    const auto vm = Vm::create(machine_with(kCounting, function(std::move(options))));
    return vm ? std::string("accepted") : vm.error().message();
  };
  EXPECT_NE(refusal(one_bar({.size = 5000})).find("power of two"), std::string::npos);
  EXPECT_NE(refusal(one_bar({.index = 6})).find("There is no BAR 6"), std::string::npos);
  EXPECT_NE(refusal(one_bar({.kind = pci::BarKind::kIo})).find("choose memory"), std::string::npos);
  PciFunctionDevice::Options twice = one_bar({.index = 0, .kind = pci::BarKind::kMemory64});
  twice.bars.push_back({.index = 1});
  EXPECT_NE(refusal(twice).find("BAR 1 is there twice"), std::string::npos);
  PciFunctionDevice::Options large = one_bar({});
  large.capabilities.push_back({.bytes = std::vector<std::uint8_t>(200)});
  EXPECT_NE(refusal(large).find("too large"), std::string::npos);
}

}  // namespace
}  // namespace vmm

// Virtio devices of the embedding program.
#include <algorithm>
#include <string>

#include "base/event_fd.h"
#include "devices/virtio/function_device.h"
#include "tests/kvm/library/library_guest.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

using virtio::FunctionDevice;
using Answer = FunctionDevice::Answer;
using Request = FunctionDevice::Request;

constexpr std::uint32_t kType = 42;
constexpr std::uint64_t kFeature = 1U << 1;
constexpr std::uint64_t kDescriptors = 0x4000, kAvailable = 0x4100, kUsed = 0x4200;
constexpr std::uint64_t kQuestion = 0x6000, kReply = 0x7000;

// A driver of the first virtio-mmio device (VIRTIO 1.2, 4.2): one queue, whose ring has been laid
// out; waits for one answer.
VMM_GUEST_CODE(kDriver, R"(
    mov $0xe8000000, %ebx
    mov 0x8(%rbx), %eax
    mov %eax, 0x2000
    movl $0, 0x70(%rbx)
    movl $1, 0x70(%rbx)
    movl $3, 0x70(%rbx)
    movl $1, 0x24(%rbx)
    movl $1, 0x20(%rbx)
    movl $0, 0x24(%rbx)
    movl $2, 0x20(%rbx)
    movl $0xb, 0x70(%rbx)
    movl $0, 0x30(%rbx)
    movl $8, 0x38(%rbx)
    movl $0x4000, 0x80(%rbx)
    movl $0, 0x84(%rbx)
    movl $0x4100, 0x90(%rbx)
    movl $0, 0x94(%rbx)
    movl $0x4200, 0xa0(%rbx)
    movl $0, 0xa4(%rbx)
    movl $1, 0x44(%rbx)
    movl $0xf, 0x70(%rbx)
    movl $0, 0x50(%rbx)
  1:
    cmpw $0, 0x4202
    je 1b
    mov 0x100(%rbx), %eax
    mov %eax, 0x2004
    mov $0x640, %dx
    out %al, %dx
    cli
    hlt
)");

// Vendor and device of 00:01.0.
VMM_GUEST_CODE(kWhoIsOnPci, R"(
    mov $0xe0008000, %ebx
    mov (%rbx), %eax
    mov %eax, 0x2000
    cli
    hlt
)");

// A request of five readable and sixteen writable bytes (2.7.5, 2.7.6).
void lay_out_ring(const GuestMemory& memory) {
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags, next;
  };
  const auto put = [&](std::uint64_t at, const auto& value) {
    ASSERT_TRUE(memory.write(Gpa(at), value));
  };
  put(kDescriptors, Descriptor{kQuestion, 5, virtio::kDescNext, 1});
  put(kDescriptors + 16, Descriptor{kReply, 16, virtio::kDescWrite, 0});
  put(kAvailable, std::array<std::uint16_t, 3>{0, 1, 0});
  put(kQuestion, std::array<char, 5>{'h', 'e', 'l', 'l', 'o'});
}

VirtioOwnConfig own(FunctionDevice::Handlers handlers) {
  FunctionDevice::Options options{.type = virtio::DeviceType{kType},
                                  .features = kFeature,
                                  .queue_sizes = {8},
                                  .config = std::vector<std::byte>(4, std::byte{0x5a})};
  return {.make = [=](const VirtioOwnHost& host) -> Result<std::unique_ptr<virtio::Device>> {
    return std::make_unique<FunctionDevice>(host.id, options, handlers);
  }};
}

VmConfig machine_with(VirtioOwnConfig device) {
  VmConfig config = flat(kDriver.image());
  config.virtio_transport = VirtioTransport::kMmio;
  config.virtio.emplace_back(std::move(device));
  return config;
}

// Answers with what was asked, backwards.
void reverse(Request& request) {
  std::string text(request.readable.remaining(), '?');
  request.readable.read(std::as_writable_bytes(std::span(text)));
  std::reverse(text.begin(), text.end());
  request.writable.write(std::as_bytes(std::span(text)));
}

std::string reply(const Vm& vm) {
  const auto text = vm.memory().read<std::array<char, 5>>(Gpa(kReply)).value();
  return {text.begin(), text.end()};
}

// The answer, as the ring has it: which descriptor, and how many bytes.
void expect_answered(const Vm& vm) {
  const auto used = vm.memory().read<std::array<std::uint32_t, 3>>(Gpa(kUsed)).value();
  EXPECT_EQ(used[0] >> 16, 1U);
  EXPECT_EQ(used[1], 0U);
  EXPECT_EQ(used[2], 5U);
  EXPECT_EQ(reply(vm), "olleh");
}

TEST(OwnVirtio, AnswersRequestsAtOnce) {
  std::uint64_t features = 0;
  CREATE_OR_RETURN(
      vm, machine_with(own({.request =
                                [](FunctionDevice&, Request& request) {
                                  reverse(request);
                                  return Answer::kNow;
                                },
                            .activate = [&](FunctionDevice&, std::uint64_t f) { features = f; }})));
  lay_out_ring(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  expect_answered(*vm);
  EXPECT_EQ(features, kFeature | virtio::kFeatureVersion1);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), kType);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2004)).value(), 0x5a5a'5a5aU);
}

TEST(OwnVirtio, AnswersLaterWhenADescriptorIsReady) {
  const EventFd ready = EventFd::create().value();
  std::uint64_t token = 0;
  VirtioOwnConfig device = own({.request = [&](FunctionDevice&, Request& request) {
    token = request.token;
    ready.signal();
    return Answer::kLater;
  }});
  device.sources.push_back({.fd = ready.fd(), .on_ready = [&](virtio::Device& inside) {
                              (void)ready.take();
                              auto& self = dynamic_cast<FunctionDevice&>(inside);
                              EXPECT_TRUE(self.finish(token, reverse));
                              EXPECT_FALSE(self.finish(token, reverse)) << "only once";
                            }});
  CREATE_OR_RETURN(vm, machine_with(device));
  lay_out_ring(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  expect_answered(*vm);
}

TEST(OwnVirtio, RequestsInFlightAreInSnapshots) {
  const auto handlers = [](Answer answer, std::uint64_t& token) {
    return FunctionDevice::Handlers{
        .request =
            [answer, &token](FunctionDevice&, Request& request) {
              token = request.token;
              if (answer == Answer::kNow) reverse(request);
              return answer;
            },
        .state = {.save = [] { return std::vector<std::byte>(); },
                  .restore = [](std::span<const std::byte>) { return Result<void>(); }}};
  };
  std::uint64_t asked = 0, asked_again = 0;
  CREATE_OR_RETURN(vm, machine_with(own(handlers(Answer::kLater, asked))));
  lay_out_ring(vm->memory());
  ASSERT_TRUE(good(vm->run_until({UntilTrue{[&] { return asked != 0; }}}, kEnough)));
  const auto copy = good(vm->clone([&](VmConfig& config) -> Result<void> {
    config.virtio.front() = own(handlers(Answer::kNow, asked_again));
    return {};
  }));
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(good(copy->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(asked_again, asked);
  expect_answered(*copy);
}

TEST(OwnVirtio, WithoutStateNoSnapshot) {
  CREATE_OR_RETURN(vm, machine_with(own({})));
  const auto snapshot = vm->snapshot();
  ASSERT_FALSE(snapshot);
  EXPECT_NE(snapshot.error().message().find("'own0' cannot be saved"), std::string::npos)
      << snapshot.error().message();
}

TEST(OwnVirtio, IsAFunctionOfPciAsWell) {
  VmConfig config = machine_with(own({}));
  config.virtio_transport = VirtioTransport::kPci;
  std::get<FlatBoot>(config.boot).image = kWhoIsOnPci.image();
  CREATE_OR_RETURN(vm, config);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), (0x1040 + kType) << 16 | 0x1af4);
}

TEST(OwnVirtio, WhatCannotBeIsRefused) {
  if (create(machine_with(own({}))) == nullptr) return;
  const auto refusal = [](FunctionDevice::Options options) {
    VirtioOwnConfig device = own({});
    device.make = [options](const VirtioOwnHost& host) -> Result<std::unique_ptr<virtio::Device>> {
      return std::make_unique<FunctionDevice>(host.id, options, FunctionDevice::Handlers());
    };
    const auto vm = Vm::create(machine_with(device));
    return vm ? std::string("accepted") : vm.error().message();
  };
  const auto type = virtio::DeviceType{kType};
  EXPECT_NE(refusal({}).find("no type"), std::string::npos);
  EXPECT_NE(refusal({.type = type, .queue_sizes = {}}).find("0 queues"), std::string::npos);
  EXPECT_NE(refusal({.type = type, .queue_sizes = {12}}).find("power of two"), std::string::npos);
  EXPECT_NE(refusal({.type = type, .features = virtio::kFeatureRingPacked}).find("0 to 23"),
            std::string::npos);
  EXPECT_NE(refusal({.type = type, .config = std::vector<std::byte>(4096)}).find("too many"),
            std::string::npos);
  const auto nothing = Vm::create(machine_with({}));
  ASSERT_FALSE(nothing);
  EXPECT_NE(nothing.error().message().find("no function to make it"), std::string::npos);
}

}  // namespace
}  // namespace vmm

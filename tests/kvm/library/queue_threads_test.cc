// Queues of a device that are given to I/O threads: whose thread does their work.
#include <gmock/gmock.h>
#include <pthread.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "devices/virtio/function_device.h"
#include "tests/kvm/library/library_guest.h"
#include "vmm/block/function_disk.h"
#include "vmm/net/function_network.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using virtio::FunctionDevice;

constexpr std::uint16_t kQueues = 2;
constexpr std::uint64_t kRings = 0x4000, kRingStride = 0x1000;  // a page of each queue's
constexpr std::uint64_t kAvailable = 0x100, kUsed = 0x200, kHeader = 0x300, kStatus = 0x310;
constexpr std::uint64_t kData = 0x400, kSector = 512;

// A driver of two queues of the first virtio-mmio device (VIRTIO 1.2, 4.2), whose rings have been
// laid out; rings for each and waits for one answer in each.
VMM_GUEST_CODE(kTwoQueues, R"(
    mov $0xe8000000, %ebx
    movl $0, 0x70(%rbx)
    movl $1, 0x70(%rbx)
    movl $3, 0x70(%rbx)
    movl $1, 0x24(%rbx)
    movl $1, 0x20(%rbx)
    movl $0, 0x24(%rbx)
    movl $0, 0x20(%rbx)
    movl $0xb, 0x70(%rbx)
    xor %ecx, %ecx
    mov $0x4000, %esi
  1:
    mov %ecx, 0x30(%rbx)
    movl $8, 0x38(%rbx)
    mov %esi, 0x80(%rbx)
    movl $0, 0x84(%rbx)
    lea 0x100(%rsi), %eax
    mov %eax, 0x90(%rbx)
    movl $0, 0x94(%rbx)
    lea 0x200(%rsi), %eax
    mov %eax, 0xa0(%rbx)
    movl $0, 0xa4(%rbx)
    movl $1, 0x44(%rbx)
    add $0x1000, %esi
    inc %ecx
    cmp $2, %ecx
    jb 1b
    movl $0xf, 0x70(%rbx)
    movl $0, 0x50(%rbx)
    movl $1, 0x50(%rbx)
  2:
    cmpw $0, 0x4202
    je 2b
    cmpw $0, 0x5202
    je 2b
    cli
    hlt
)");

std::string this_thread() {
  std::array<char, 16> text{};
  ::pthread_getname_np(::pthread_self(), text.data(), text.size());
  return text.data();
}

// In each queue a request that reads a sector, queue N's the N-th (2.7.5, 2.7.6, 5.2.6).
void lay_out_rings(const GuestMemory& memory) {
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags, next;
  };
  const auto put = [&](std::uint64_t at, const auto& value) {
    ASSERT_TRUE(memory.write(Gpa(at), value));
  };
  for (std::uint64_t queue = 0; queue < kQueues; ++queue) {
    const std::uint64_t page = kRings + queue * kRingStride;
    put(page, Descriptor{page + kHeader, 16, virtio::kDescNext, 1});
    put(page + 16, Descriptor{page + kData, kSector, virtio::kDescNext | virtio::kDescWrite, 2});
    put(page + 32, Descriptor{page + kStatus, 1, virtio::kDescWrite, 0});
    put(page + kAvailable, std::array<std::uint16_t, 3>{0, 1, 0});
    put(page + kHeader, std::array<std::uint64_t, 2>{0, queue});
    put(page + kStatus, std::uint8_t{0xff});
  }
}

VmConfig machine_with(VirtioConfig device) {
  VmConfig config = flat(kTwoQueues.image());
  config.io_threads = 2;
  config.virtio_transport = VirtioTransport::kMmio;
  config.virtio.push_back(std::move(device));
  return config;
}

// Which thread has read which sector.
using Readers = std::map<std::uint64_t, std::string>;

VirtioDiskConfig disk(Readers& readers, std::vector<std::uint32_t> threads) {
  const auto read = [&readers](std::uint64_t offset, std::span<std::byte> bytes) {
    readers[offset / kSector] = this_thread();
    std::fill(bytes.begin(), bytes.end(), std::byte(0x40 + offset / kSector));
    return 0;
  };
  return {.backend = good(block::FunctionDisk::create(MiB(1), {.read = read})),
          .queues = kQueues,
          .queue_threads = std::move(threads)};
}

TEST(QueueThreads, EachServesItsQueuesOfADisk) {
  Readers readers;
  CREATE_OR_RETURN(vm, machine_with(disk(readers, {2, 1})));
  lay_out_rings(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(readers, (Readers{{0, "io2"}, {1, "io1"}}));
  for (std::uint64_t queue = 0; queue < kQueues; ++queue) {
    const std::uint64_t page = kRings + queue * kRingStride;
    const auto used = vm->memory().read<std::array<std::uint32_t, 3>>(Gpa(page + kUsed)).value();
    EXPECT_EQ(used[0] >> 16, 1U) << "one answer";
    EXPECT_EQ(used[2], kSector + 1);
    EXPECT_EQ(vm->memory().read<std::uint8_t>(Gpa(page + kStatus)).value(), 0);
    EXPECT_EQ(vm->memory().read<std::uint8_t>(Gpa(page + kData + kSector - 1)).value(),
              0x40 + queue);
  }
  const VmStatus status = vm->status();
  ASSERT_EQ(status.disks.size(), 1U);
  EXPECT_EQ(status.disks[0].requests, 2U);
  EXPECT_THAT(status.disks[0].queue_threads, ElementsAre(2U, 1U));
}

TEST(QueueThreads, OneServesAllQueuesOfADisk) {
  Readers readers;
  CREATE_OR_RETURN(vm, machine_with(disk(readers, {2})));
  lay_out_rings(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(readers, (Readers{{0, "io2"}, {1, "io2"}}));
  EXPECT_THAT(vm->status().disks[0].queue_threads, ElementsAre(2U, 2U));
}

TEST(QueueThreads, WithoutThemTheEventLoopServesAllQueues) {
  Readers readers;
  CREATE_OR_RETURN(vm, machine_with(disk(readers, {})));
  lay_out_rings(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(readers, (Readers{{0, "io"}, {1, "io"}}));
  EXPECT_THAT(vm->status().disks[0].queue_threads, ElementsAre(0U, 0U));
}

// They are the host's affair, and not in the snapshot.
TEST(QueueThreads, AreChosenAnewForAMachineThatGoesOn) {
  Readers before, after;
  CREATE_OR_RETURN(vm, machine_with(disk(before, {2, 1})));
  lay_out_rings(vm->memory());
  const auto copy = good(vm->clone([&](VmConfig& config) -> Result<void> {
    EXPECT_TRUE(std::get<VirtioDiskConfig>(config.virtio.front()).queue_threads.empty());
    config.io_threads = 1;
    config.virtio.front() = disk(after, {0, 1});
    return {};
  }));
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(good(copy->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(after, (Readers{{0, "io"}, {1, "io1"}}));
  EXPECT_TRUE(before.empty());
}

TEST(QueueThreads, ServeADeviceOfTheProgramsAndItsDescriptors) {
  std::map<std::uint16_t, std::string> asked;
  std::string ready;
  const EventFd host = EventFd::create().value();
  const FunctionDevice::Options options{.type = virtio::DeviceType{42}, .queue_sizes = {8, 8}};
  VirtioOwnConfig own{.make =
                          [&](const VirtioOwnHost& at) -> Result<std::unique_ptr<virtio::Device>> {
    return std::make_unique<FunctionDevice>(
        at.id, options,
        FunctionDevice::Handlers{.request = [&](FunctionDevice&, FunctionDevice::Request& request) {
          asked[request.queue] = this_thread();
          if (request.queue == 0) return FunctionDevice::Answer::kNow;
          host.signal();
          return FunctionDevice::Answer::kLater;
        }});
  }};
  own.sources.push_back({.fd = host.fd(),
                         .on_ready =
                             [&](virtio::Device& inside) {
                               (void)host.take();
                               ready = this_thread();
                               auto& self = dynamic_cast<FunctionDevice&>(inside);
                               for (std::uint64_t token = 1; token <= 2; ++token) {
                                 (void)self.finish(token, [](FunctionDevice::Request&) {});
                               }
                             },
                         .queue = 1});
  own.queue_threads = {1, 2};
  CREATE_OR_RETURN(vm, machine_with(own));
  lay_out_rings(vm->memory());
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(asked, (std::map<std::uint16_t, std::string>{{0, "io1"}, {1, "io2"}}));
  EXPECT_EQ(ready, "io2");

  const auto refusal = [&](const VirtioOwnConfig& device) {
    const auto refused = Vm::create(machine_with(device));
    return refused ? std::string("accepted") : refused.error().message();
  };
  own.sources.front().queue = 2;
  EXPECT_THAT(refusal(own), HasSubstr("queue 2"));
  own.sources.clear();
  own.queue_threads = {1, 2, 1};
  EXPECT_THAT(refusal(own), HasSubstr("3 threads"));
}

// Both queues of a pair have one thread, the control queue that of the first pair.
TEST(QueueThreads, ServePairsOfANetwork) {
  const auto network = [] {
    return good(FunctionNetwork::create([](std::span<const std::byte>) {}));
  };
  VirtioNetConfig net{.mac = MacAddress{{0x52, 0x54, 0, 0, 0, 1}}, .backend = network()};
  net.more_queues.push_back(network());
  net.more_queues.push_back(network());
  net.queue_threads = {2, 1};
  VmConfig config = machine_with(net);
  config.virtio_transport = VirtioTransport::kPci;
  CREATE_OR_RETURN(vm, config);
  EXPECT_THAT(vm->status().nets[0].queue_threads, ElementsAre(2U, 2U, 1U, 1U, 2U, 2U, 2U));
}

}  // namespace
}  // namespace vmm

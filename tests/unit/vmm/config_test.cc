#include "vmm/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fakes/ram_disk.h"
#include "tests/support/fakes/recording_net_backend.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

VmConfig with_memory(std::uint64_t size, MemoryBacking backing = MemoryBacking::kAnonymous) {
  VmConfig config;
  config.memory.size = size;
  config.memory.backing = backing;
  return config;
}

VmConfig with_cpus(std::uint32_t count, IrqchipMode irqchip = IrqchipMode::kAuto) {
  VmConfig config;
  config.cpus.count = count;
  config.irqchip = irqchip;
  return config;
}

VmConfig with_flat(std::size_t bytes, Gpa address, FlatMode mode) {
  VmConfig config;
  FlatBoot flat;
  flat.image.resize(bytes);
  flat.name = "stub.bin";
  flat.address = address;
  flat.mode = mode;
  config.boot = std::move(flat);
  return config;
}

TEST(ValidateConfig, DefaultsAreSound) { EXPECT_THAT(validate(VmConfig{}), IsEmpty()); }

TEST(ValidateConfig, LeastMemoryIsTwoMebibytes) {
  EXPECT_THAT(validate(with_memory(MiB(2))), IsEmpty());
  EXPECT_THAT(validate(with_memory(MiB(2) - KiB(4))), ElementsAre(HasSubstr("too small")));
  EXPECT_THAT(validate(with_memory(0)), ElementsAre(HasSubstr("too small")));
}

TEST(ValidateConfig, MemoryBeyondTheAddressWidthIsRefused) {
  const std::uint64_t most = std::uint64_t{1} << 46;
  EXPECT_THAT(validate(with_memory(most)), IsEmpty());
  EXPECT_THAT(validate(with_memory(most + KiB(4))), ElementsAre(HasSubstr("can address")));
  EXPECT_THAT(validate(with_memory(~std::uint64_t{0} - KiB(4) + 1)),
              ElementsAre(HasSubstr("can address")));
}

TEST(ValidateConfig, MemoryIsWholePages) {
  EXPECT_THAT(validate(with_memory(MiB(2) + 1)), ElementsAre(HasSubstr("multiple of 4 KiB")));
  EXPECT_THAT(validate(with_memory(MiB(2) + KiB(4))), IsEmpty());
}

TEST(ValidateConfig, HugePagesAskForMultiplesOfTwoMebibytes) {
  EXPECT_THAT(validate(with_memory(MiB(4), MemoryBacking::kHugetlbfs)), IsEmpty());
  EXPECT_THAT(validate(with_memory(MiB(3), MemoryBacking::kHugetlbfs)),
              ElementsAre(HasSubstr("multiple of 2 MiB")));
}

TEST(ValidateConfig, TwoKindsOfHugePagesAreOneTooMany) {
  VmConfig config = with_memory(MiB(4), MemoryBacking::kHugetlbfs);
  config.memory.transparent_huge_pages = true;
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("choose one")));
}

TEST(ValidateConfig, CpuCountHasBounds) {
  EXPECT_THAT(validate(with_cpus(1)), IsEmpty());
  EXPECT_THAT(validate(with_cpus(64)), IsEmpty());
  EXPECT_THAT(validate(with_cpus(255)), IsEmpty());
  EXPECT_THAT(validate(with_cpus(0)), ElementsAre(HasSubstr("0 CPUs")));
  EXPECT_THAT(validate(with_cpus(256)), ElementsAre(HasSubstr("256 CPUs")));
}

TEST(ValidateConfig, SecondCpuNeedsInterruptControllers) {
  EXPECT_THAT(validate(with_cpus(1, IrqchipMode::kNone)), IsEmpty());
  EXPECT_THAT(validate(with_cpus(2, IrqchipMode::kNone)),
              ElementsAre(HasSubstr("interrupt controllers")));
}

TEST(ValidateConfig, KernelNeedsAName) {
  VmConfig config;
  config.boot = KernelBoot{};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("file name")));
}

TEST(ValidateConfig, CommandLineWithAZeroByteIsRefused) {
  VmConfig config;
  KernelBoot kernel;
  kernel.kernel = "bzImage";
  kernel.cmdline = std::string("console=ttyS0\0quiet", 19);
  config.boot = kernel;
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("zero byte")));
}

TEST(ValidateConfig, KernelIsNoFlatImage) {
  VmConfig config;
  KernelBoot kernel;
  kernel.kernel = "bzImage";
  kernel.protocol = BootProtocol::kFlat;
  config.boot = kernel;
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("FlatBoot")));
}

TEST(ValidateConfig, EmptyFlatImageIsRefusedByName) {
  EXPECT_THAT(validate(with_flat(0, Gpa(0x1000), FlatMode::kLong)),
              ElementsAre(AllOf(HasSubstr("stub.bin"), HasSubstr("empty"))));
}

TEST(ValidateConfig, RealModeImageEndsBelowOneMebibyte) {
  EXPECT_THAT(validate(with_flat(0x1000, Gpa(0xff000), FlatMode::kReal)), IsEmpty());
  EXPECT_THAT(validate(with_flat(0x1001, Gpa(0xff000), FlatMode::kReal)),
              ElementsAre(HasSubstr("1 MiB")));
  EXPECT_THAT(validate(with_flat(2, Gpa(~std::uint64_t{0}), FlatMode::kReal)),
              ElementsAre(HasSubstr("1 MiB")));
  EXPECT_THAT(validate(with_flat(0x1001, Gpa(0xff000), FlatMode::kLong)), IsEmpty());
}

TEST(ValidateConfig, NetworkInterfacesHaveNetworksAndAddressesOfTheirOwn) {
  const auto network = std::make_shared<test::RecordingNetBackend>();
  const MacAddress address{{2, 0, 0, 0, 0, 1}}, other{{2, 0, 0, 0, 0, 2}};
  VmConfig config;
  config.virtio = {VirtioNetConfig{.mac = address, .backend = network},
                   VirtioNetConfig{.mac = other, .backend = network}};
  EXPECT_THAT(validate(config), IsEmpty());
  config.virtio = {VirtioNetConfig{.mac = address, .backend = network},
                   VirtioNetConfig{.mac = address, .backend = network}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("mac=")));
  config.virtio = {VirtioNetConfig{.mac = address}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("no network")));
  config.virtio = {VirtioNetConfig{.mac = {{1, 0, 0, 0, 0, 1}}, .backend = network}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("own address")));
}

TEST(ValidateConfig, NamesAreTheirOwn) {
  const auto network = std::make_shared<test::RecordingNetBackend>();
  const MacAddress first{{2, 0, 0, 0, 0, 1}}, second{{2, 0, 0, 0, 0, 2}};
  VmConfig config;
  config.virtio = {VirtioNetConfig{.mac = first, .backend = network},
                   VirtioNetConfig{.name = "net0", .mac = second, .backend = network}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("the name net0")));
}

TEST(ValidateConfig, PairsOfQueuesAreLimited) {
  const auto network = std::make_shared<test::RecordingNetBackend>();
  VirtioNetConfig net{.mac = {{2, 0, 0, 0, 0, 1}}, .backend = network};
  net.more_queues.assign(15, network);
  EXPECT_THAT(validate(net), IsEmpty());
  net.more_queues.push_back(network);
  EXPECT_THAT(validate(net), ElementsAre(HasSubstr("17 pairs")));
  net.more_queues = {nullptr};
  EXPECT_THAT(validate(net), ElementsAre(HasSubstr("no network")));
}

TEST(ValidateConfig, HotPlugSlotsAreThoseOfABus) {
  VmConfig config;
  config.hotplug_slots = 31;
  EXPECT_THAT(validate(config), IsEmpty());
  config.hotplug_slots = 32;
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("32 slots")));
}

TEST(ValidateConfig, OneBalloonFitsIntoMemory) {
  VmConfig config;
  config.virtio = {VirtioBalloonConfig{.size = config.memory.size}};
  EXPECT_THAT(validate(config), IsEmpty());
  config.virtio = {VirtioBalloonConfig{.size = config.memory.size + 1}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("larger")));
  config.virtio = {VirtioBalloonConfig{}, VirtioBalloonConfig{}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("More than one")));
  config.virtio = {VirtioBalloonConfig{.statistics = std::chrono::seconds(0)}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("statistics")));
}

TEST(ValidateConfig, MemoryGrowsByWholeBlocks) {
  VmConfig config;
  const std::uint64_t start = config.memory.size;
  config.virtio = {VirtioMemConfig{.most = start + MiB(64), .size = start + MiB(2)}};
  EXPECT_THAT(validate(config), IsEmpty());
  config.virtio = {VirtioMemConfig{.most = start}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("--mem")));
  config.virtio = {VirtioMemConfig{.most = start + MiB(3)}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("multiple of 2 MiB")));
  config.virtio = {VirtioMemConfig{.most = start + MiB(64), .size = start + MiB(66)}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("cannot be")));
  config.virtio = {VirtioMemConfig{.most = start + MiB(2)},
                   VirtioMemConfig{.most = start + MiB(2)}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("More than one")));
}

TEST(ValidateConfig, OtherProcessesAreNotToldOfMemoryThatGrows) {
  VmConfig config;
  config.memory.backing = MemoryBacking::kMemfd;
  config.virtio = {VhostShareConfig{.tag = "share"},
                   VirtioMemConfig{.most = config.memory.size + MiB(64)}};
  EXPECT_THAT(validate(config), Contains(HasSubstr("leave out --memory-max")));
  config.virtio.pop_back();
  EXPECT_THAT(validate(config), Not(Contains(HasSubstr("--memory-max"))));
}

TEST(ValidateConfig, SnapshotBringsItsMemory) {
  VmConfig config;
  config.boot = SnapshotBoot{};
  EXPECT_THAT(validate(config), Not(Contains(HasSubstr("--memory-max"))));
  config.virtio = {VirtioMemConfig{.most = config.memory.size + MiB(64)}};
  EXPECT_THAT(validate(config), Contains(HasSubstr("--memory-max")));
  config.virtio = {VirtioPmemConfig{}};
  EXPECT_THAT(validate(config), Contains(HasSubstr("--pmem")));
}

TEST(ValidateConfig, PersistentMemoryHasAFile) {
  VmConfig config;
  config.virtio = {VirtioPmemConfig{}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("no file")));
}

TEST(ValidateConfig, AllProblemsAreReportedAtOnce) {
  VmConfig config = with_cpus(0);
  config.memory.size = 1;
  config.boot = KernelBoot{};
  EXPECT_THAT(validate(config), SizeIs(4));  // too small, not whole pages, no CPU, no kernel
}

TEST(Config, IoThreads_haveToBeThere) {
  VmConfig config;
  config.io_threads = 65;
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("65 I/O threads")));
  config.io_threads = 1;
  config.virtio.emplace_back(
      VirtioNetConfig{.mac = MacAddress{{0x52, 0x54, 0, 0, 0, 1}},
                      .backend = std::make_shared<test::RecordingNetBackend>(),
                      .queue_threads = {2}});
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("--iothreads 2")));
  config.io_threads = 2;
  EXPECT_THAT(validate(config), IsEmpty());
}

TEST(Config, IoThreads_haveAQueueEach) {
  VmConfig config;
  config.io_threads = 2;
  VirtioDiskConfig disk{
      .backend = std::make_shared<test::RamDisk>(MiB(1)), .queues = 2, .queue_threads = {2, 0, 1}};
  config.virtio = {disk};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("queues=3")));
  EXPECT_THAT(validate(config.virtio.front()), ElementsAre(HasSubstr("queues=3")))
      << "when it is plugged in";
  disk.queues = 3;
  config.virtio = {disk};
  EXPECT_THAT(validate(config), IsEmpty());
  config.virtio = {VirtioNetConfig{.mac = MacAddress{{0x52, 0x54, 0, 0, 0, 1}},
                                   .backend = std::make_shared<test::RecordingNetBackend>(),
                                   .queue_threads = {1, 2}}};
  EXPECT_THAT(validate(config), ElementsAre(HasSubstr("queues=2")));
}

}  // namespace
}  // namespace vmm

#include "vmm/guest_ram.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "base/size.h"
#include "tests/support/scratch_directory.h"
#include "vmm/pmem_file.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

class GuestRam : public testing::Test {
 protected:
  void add_file(VmConfig& config, std::uint64_t size) {
    const std::string path = directory_.file(std::to_string(files_++));
    test::write_file(path, {});
    auto file = PmemFile::open({.file = path, .size = size}, Log());
    ASSERT_TRUE(file) << file.error().message();
    config.virtio.emplace_back(VirtioPmemConfig{.file = *file});
  }
  test::ScratchDirectory directory_;
  int files_ = 0;
};

TEST_F(GuestRam, FilesAndBlocks_lieAboveRam) {
  VmConfig config;
  config.memory.size = MiB(64);
  config.virtio.emplace_back(VirtioMemConfig{.most = MiB(320)});
  add_file(config, MiB(2));
  add_file(config, MiB(130));
  const GuestMemory memory = map_guest_memory(config).value();
  ASSERT_EQ(memory.regions().size(), 4U);
  EXPECT_EQ(memory.size(), MiB(64));
  EXPECT_EQ(memory.region(RegionKind::kFile, 0)->range(), *GpaRange::create(Gpa(GiB(4)), MiB(2)));
  EXPECT_EQ(memory.region(RegionKind::kFile, 1)->range(),
            *GpaRange::create(Gpa(GiB(4) + MiB(128)), MiB(130)));
  EXPECT_EQ(memory.region(RegionKind::kBlocks, 0)->range(),
            *GpaRange::create(Gpa(GiB(6)), MiB(256)));
  EXPECT_EQ(memory.region(RegionKind::kBlocks, 0)->blocks()->block_size(), MiB(2));
  EXPECT_EQ(memory.region(RegionKind::kBlocks, 1), nullptr);
}

TEST_F(GuestRam, RamAbove4GiB_comesFirst) {
  VmConfig config;
  config.memory.size = GiB(3) + MiB(512);
  add_file(config, MiB(2));
  const auto memory = map_guest_memory(config);
  if (!memory) GTEST_SKIP() << memory.error().message();
  EXPECT_EQ(memory->region(RegionKind::kFile, 0)->range().base(), Gpa(GiB(4) + MiB(512)));
}

TEST(MemoryBlockSize, GrowsWithTheMemory) {
  EXPECT_EQ(virtio_mem_block(MiB(2)), MiB(2));
  EXPECT_EQ(virtio_mem_block(GiB(16)), MiB(2));
  EXPECT_EQ(virtio_mem_block(GiB(17)), MiB(4));
  EXPECT_EQ(virtio_mem_block(GiB(1024)), MiB(128));
}

}  // namespace
}  // namespace vmm

#include "cli/disk_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using testing::HasSubstr;

DiskSpec parsed(std::string_view text) {
  auto disk = parse_disk(text);
  EXPECT_TRUE(disk) << disk.error().message();
  return disk ? *disk : DiskSpec{};
}

std::string problem(std::string_view text) {
  const auto disk = parse_disk(text);
  return disk ? "" : disk.error().message();
}

TEST(DiskOption, PathAlone_isAWritableDisk) {
  const DiskSpec disk = parsed("path=a b.img");
  EXPECT_EQ(disk.image.path, "a b.img");
  EXPECT_FALSE(disk.image.read_only);
  EXPECT_FALSE(disk.image.direct);
  EXPECT_FALSE(disk.image.discard);
  EXPECT_EQ(disk.image.cow, CowMode::kNone);
  EXPECT_EQ(disk.queues, 1);
}

TEST(DiskOption, EveryPart_isTaken) {
  const DiskSpec disk = parsed("queues=4,direct,serial=S-1,path=/dev/sdb,discard,cow=over=lay");
  EXPECT_EQ(disk.image.path, "/dev/sdb");
  EXPECT_EQ(disk.serial, "S-1");
  EXPECT_EQ(disk.queues, 4);
  EXPECT_TRUE(disk.image.direct);
  EXPECT_TRUE(disk.image.discard);
  EXPECT_EQ(disk.image.cow, CowMode::kKeep);
  EXPECT_EQ(disk.image.cow_file, "over=lay");
  EXPECT_EQ(parsed("path=x,cow").image.cow, CowMode::kThrowAway);
  EXPECT_TRUE(parsed("path=x,ro").image.read_only);
}

TEST(DiskOption, Mistakes_areNamedWithTheWayOut) {
  EXPECT_THAT(problem("disk.img"), HasSubstr("path=FILE"));
  EXPECT_THAT(problem(""), HasSubstr("path=FILE"));
  EXPECT_THAT(problem("ro"), HasSubstr("path=FILE"));
  EXPECT_THAT(problem("path="), HasSubstr("lacks"));
  EXPECT_THAT(problem("path=a,path=b"), HasSubstr("its own --disk"));
  EXPECT_THAT(problem("path=a,format=qcow2"), HasSubstr("'format=' is unknown"));
  EXPECT_THAT(problem("path=a,queues=0"), HasSubstr("without queues"));
  EXPECT_THAT(problem("path=a,queues=17"), HasSubstr("too large"));
  EXPECT_THAT(problem("path=a,serial=123456789012345678901"), HasSubstr("longer than 20"));
  EXPECT_THAT(problem("path=a,ro,cow"), HasSubstr("exclude each other"));
  EXPECT_THAT(problem("path=a,ro,discard"), HasSubstr("without ro"));
  EXPECT_THAT(problem("path=a,cow="), HasSubstr("lacks"));
}

}  // namespace
}  // namespace vmm::cli

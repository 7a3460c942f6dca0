#include "cli/disk_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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
  EXPECT_THAT(disk.io_threads, IsEmpty());
}

TEST(DiskOption, EveryPart_isTaken) {
  const DiskSpec disk =
      parsed("queues=4,iothread=3,direct,serial=S-1,path=/dev/sdb,discard,cow=over=lay");
  EXPECT_EQ(disk.image.path, "/dev/sdb");
  EXPECT_EQ(disk.serial, "S-1");
  EXPECT_EQ(disk.queues, 4);
  EXPECT_THAT(disk.io_threads, ElementsAre(3U));
  EXPECT_THAT(parsed("path=x,iothread=1:64:1").io_threads, ElementsAre(1U, 64U, 1U));
  EXPECT_TRUE(disk.image.direct);
  EXPECT_TRUE(disk.image.discard);
  EXPECT_EQ(disk.image.cow, CowMode::kKeep);
  EXPECT_EQ(disk.image.cow_file, "over=lay");
  EXPECT_EQ(parsed("path=x,cow").image.cow, CowMode::kThrowAway);
  EXPECT_TRUE(parsed("path=x,ro").image.read_only);
}

TEST(DiskOption, DiskOfAnotherProcess_isReached) {
  const DiskSpec disk = parsed("vhost-user-blk=/run/qsd.sock,queues=2,reconnect");
  EXPECT_EQ(disk.vhost_socket, "/run/qsd.sock");
  EXPECT_EQ(disk.queues, 2);
  EXPECT_TRUE(disk.reconnect);
  EXPECT_THAT(problem("vhost-user-blk=s,ro"), HasSubstr("for the process that serves the disk"));
  EXPECT_THAT(problem("vhost-user-blk=s,iothread=1"), HasSubstr("process that serves the disk"));
  EXPECT_THAT(problem("vhost-user-blk=s,serial=x"), HasSubstr("process that serves the disk"));
  EXPECT_THAT(problem("vhost-user-blk=s,path=a"), HasSubstr("two disks"));
  EXPECT_THAT(problem("path=a,reconnect"), HasSubstr("vhost-user-blk"));
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
  EXPECT_THAT(problem("path=a,iothread=0"), HasSubstr("counted from 1"));
  EXPECT_THAT(problem("path=a,iothread=1:0"), HasSubstr("counted from 1"));
  EXPECT_THAT(problem("path=a,iothread=65"), HasSubstr("too large"));
  EXPECT_THAT(problem("path=a,iothread=1:"), HasSubstr("''"));
  EXPECT_THAT(problem("path=a,serial=123456789012345678901"), HasSubstr("longer than 20"));
  EXPECT_THAT(problem("path=a,ro,cow"), HasSubstr("exclude each other"));
  EXPECT_THAT(problem("path=a,ro,discard"), HasSubstr("without ro"));
  EXPECT_THAT(problem("path=a,cow="), HasSubstr("lacks"));
}

TEST(DiskOption, NbdUri_isTakenAsItIs) {
  EXPECT_EQ(parsed("nbd:nbd://host:10809/name,ro").image.nbd, "nbd://host:10809/name");
  EXPECT_EQ(parsed("nbd://host/").image.nbd, "nbd://host/");
  EXPECT_EQ(parsed("serial=a,nbds+unix:///x?socket=/a=b&tls-certificates=/c,discard").image.nbd,
            "nbds+unix:///x?socket=/a=b&tls-certificates=/c");
}

TEST(DiskOption, ImpossibleNbdDisks_areNamedWithTheWayOut) {
  EXPECT_THAT(problem("nbd:localhost"), HasSubstr("nbd://HOST"));
  EXPECT_THAT(problem("nbd:"), HasSubstr("nbd://HOST"));
  EXPECT_THAT(problem("nbd://a/,path=b"), HasSubstr("its own --disk"));
  EXPECT_THAT(problem("nbd://a/,nbd://b/"), HasSubstr("its own --disk"));
  EXPECT_THAT(problem("nbd://a/,cow"), HasSubstr("cow"));
  EXPECT_THAT(problem("nbd://a/,direct"), HasSubstr("direct"));
  EXPECT_THAT(problem("nbd://a/,ro,discard"), HasSubstr("without ro"));
}

TEST(DiskOption, Limits_areTaken) {
  const BlockRates rates =
      parsed("path=x,bps=1M,bps-rd=2K,bps-wr=3,iops=4,iops-rd=5,iops-wr=6,burst=1.5").image.rates;
  EXPECT_EQ(rates.bytes, 1024U * 1024);
  EXPECT_EQ(rates.read_bytes, 2048U);
  EXPECT_EQ(rates.write_bytes, 3U);
  EXPECT_EQ(rates.operations, 4U);
  EXPECT_EQ(rates.read_operations, 5U);
  EXPECT_EQ(rates.write_operations, 6U);
  EXPECT_EQ(rates.burst, std::chrono::milliseconds(1500));
  EXPECT_FALSE(parsed("path=x").image.rates.limited());
}

TEST(DiskOption, ImpossibleLimits_areNamedWithTheWayOut) {
  EXPECT_THAT(problem("path=a,bps=fast"), HasSubstr("'fast' is not a size"));
  EXPECT_THAT(problem("path=a,iops=0"), HasSubstr("without iops="));
  EXPECT_THAT(problem("path=a,bps=2T"), HasSubstr("more than 1 TiB"));
  EXPECT_THAT(problem("path=a,iops=1K"), HasSubstr("1K"));
  EXPECT_THAT(problem("path=a,bps=1M,burst=4000"), HasSubstr("3600"));
  EXPECT_THAT(problem("path=a,burst=1"), HasSubstr("belongs to a limit"));
}

}  // namespace
}  // namespace vmm::cli

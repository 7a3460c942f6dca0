#include "vmm/guest_linux/kernel_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

using testing::HasSubstr;

// Linux 6.1's, as its VMCOREINFO says it.
constexpr std::string_view kLayout =
    "OSRELEASE=6.1.0\n"
    "SYMBOL(prb)=ffffffff80001000\n"
    "SIZE(printk_ringbuffer)=80\nOFFSET(printk_ringbuffer.desc_ring)=0\n"
    "OFFSET(printk_ringbuffer.text_data_ring)=40\n"
    "SIZE(prb_desc_ring)=40\nOFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\n"
    "OFFSET(prb_desc_ring.infos)=16\nOFFSET(prb_desc_ring.head_id)=24\n"
    "OFFSET(prb_desc_ring.tail_id)=32\n"
    "SIZE(prb_desc)=24\nOFFSET(prb_desc.state_var)=0\nOFFSET(prb_desc.text_blk_lpos)=8\n"
    "SIZE(prb_data_blk_lpos)=16\nOFFSET(prb_data_blk_lpos.begin)=0\n"
    "OFFSET(prb_data_blk_lpos.next)=8\n"
    "SIZE(printk_info)=88\nOFFSET(printk_info.seq)=0\nOFFSET(printk_info.ts_nsec)=8\n"
    "OFFSET(printk_info.text_len)=16\n"
    "SIZE(prb_data_ring)=32\nOFFSET(prb_data_ring.size_bits)=0\nOFFSET(prb_data_ring.data)=8\n";

constexpr std::uint64_t kRing = 0x2000, kDescs = 0x3000, kInfos = 0x4000, kTexts = 0x8000;
constexpr std::uint64_t kFinalized = 2ULL << 62, kReusable = 3ULL << 62;
constexpr std::uint64_t kTextSize = 256;

// A log of eight descriptors and 256 bytes of text.
class KernelLog : public testing::Test {
 protected:
  KernelLog() {
    kernel_.put_vmcoreinfo(kLayout);
    kernel_.put(0x1000, FakeKernel::kBase + kRing);
    kernel_.put(kRing, std::uint32_t{3});
    kernel_.put(kRing + 8, FakeKernel::kBase + kDescs);
    kernel_.put(kRing + 16, FakeKernel::kBase + kInfos);
    kernel_.put(kRing + 40, std::uint32_t{8});
    kernel_.put(kRing + 48, FakeKernel::kBase + kTexts);
    set_range(0, 0);
  }

  void set_range(std::uint64_t tail, std::uint64_t head) {
    kernel_.put(kRing + 24, head);
    kernel_.put(kRing + 32, tail);
  }

  // A record whose block begins at this position.
  void put_record(std::uint64_t id, std::uint64_t position, std::string_view text,
                  std::uint64_t state = kFinalized) {
    const std::uint64_t desc = kDescs + id % 8 * 24, info = kInfos + id % 8 * 88;
    const std::uint64_t end = position + 8 + (text.size() + 7) / 8 * 8;
    const bool wraps = position / kTextSize != end / kTextSize;
    const std::uint64_t next = wraps ? (end / kTextSize) * kTextSize + (end - position) : end;
    kernel_.put(desc, id | state);
    kernel_.put(desc + 8, position);
    kernel_.put(desc + 16, next);
    kernel_.put(info, id);
    kernel_.put(info + 8, id * 1'500'000'000);
    kernel_.put(info + 16, static_cast<std::uint16_t>(text.size()));
    const std::uint64_t at = kTexts + (wraps ? 0 : position % kTextSize);
    kernel_.put(at, id);
    kernel_.put_text(at + 8, text);
  }

  std::string log(std::size_t most = 100) {
    const auto kernel = kernel_.open();
    if (!kernel) return "error: " + kernel.error().message();
    const auto records = read_kernel_log(*kernel, most);
    return records ? format_kernel_log(*records) : "error: " + records.error().message();
  }

  FakeKernel kernel_;
};

TEST_F(KernelLog, RecordsInTheirOrder) {
  set_range(1, 3);
  put_record(1, 0, "Linux version 6.1");
  put_record(2, 32, "two\nlines");
  put_record(3, 64, "");
  EXPECT_EQ(log(),
            "[    1.500000] Linux version 6.1\n[    3.000000] two\n[    3.000000] lines\n"
            "[    4.500000] \n");
}

TEST_F(KernelLog, TheLastOnes) {
  set_range(1, 3);
  put_record(1, 0, "one");
  put_record(2, 32, "two");
  put_record(3, 64, "three");
  EXPECT_EQ(log(1), "[    4.500000] three\n");
  EXPECT_EQ(log(0), "");
}

TEST_F(KernelLog, BlockThatGoesToTheBeginning) {
  set_range(9, 10);
  put_record(9, kTextSize + 192, "before the end");
  put_record(10, kTextSize + 240, "behind the end");
  EXPECT_EQ(log(), "[   13.500000] before the end\n[   15.000000] behind the end\n");
}

TEST_F(KernelLog, RecordsThatAreBeingWrittenOrGone) {
  set_range(1, 4);
  put_record(1, 0, "reused", kReusable);
  put_record(2, 32, "there");
  put_record(3, 64, "reserved", 0);
  put_record(12, 96, "of a later round");  // has the descriptor of 4
  EXPECT_EQ(log(), "[    3.000000] there\n");
}

TEST_F(KernelLog, BytesThatATerminalWouldActUpon) {
  set_range(1, 1);
  put_record(1, 0, "\033[2Jx\xff\rend");
  EXPECT_EQ(log(), "[    1.500000] \\x1b[2Jx\\xff\\x0dend\n");
}

// ---- a guest that lies

TEST_F(KernelLog, LengthIsCutToTheBlock) {
  set_range(1, 1);
  put_record(1, 0, "12345678");
  kernel_.put(kInfos + 88 + 16, std::uint16_t{0xffff});
  EXPECT_EQ(log(), "[    1.500000] 12345678\n");
}

TEST_F(KernelLog, BlockOfAnotherRecord) {
  set_range(1, 1);
  put_record(1, 0, "12345678");
  kernel_.put(kTexts, std::uint64_t{77});
  EXPECT_EQ(log(), "[    1.500000] \n");
}

TEST_F(KernelLog, SizesThatNoKernelHas) {
  kernel_.put(kRing, std::uint32_t{63});
  EXPECT_THAT(log(), HasSubstr("2^63 descriptors"));
  kernel_.put(kRing, std::uint32_t{3});
  kernel_.put(kRing + 40, std::uint32_t{64});
  EXPECT_THAT(log(), HasSubstr("2^64 bytes"));
}

TEST_F(KernelLog, HeadFarAwayFromTheTail) {
  put_record(3, 0, "the only one");
  set_range(4, 3);  // all numbers there are
  EXPECT_EQ(log(~std::size_t{0}), "[    4.500000] the only one\n");
}

TEST_F(KernelLog, PointersThatLeadNowhere) {
  set_range(1, 1);
  put_record(1, 0, "12345678");
  kernel_.put(kRing + 48, std::uint64_t{0x1234});
  EXPECT_THAT(log(), HasSubstr("0x1234"));
  kernel_.put(kRing + 8, ~std::uint64_t{0});
  EXPECT_THAT(log(), HasSubstr("page tables"));
  kernel_.put(0x1000, std::uint64_t{0});
  EXPECT_THAT(log(), HasSubstr("page tables"));
}

TEST_F(KernelLog, KernelThatSaysNothing) {
  kernel_.put_vmcoreinfo("OSRELEASE=6.1.0\n");
  EXPECT_THAT(log(), HasSubstr("give --symbols a vmlinux with debug information"));
}

}  // namespace
}  // namespace vmm::guest_linux

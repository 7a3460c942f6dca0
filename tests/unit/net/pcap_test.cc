#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/le.h"
#include "tests/support/fakes/recording_net_backend.h"
#include "tests/unit/net/net_support.h"
#include "vmm/net/capture_backend.h"
#include "vmm/net/pcap_writer.h"

namespace vmm {
namespace {

using namespace std::chrono_literals;
using test::Frame;

class Pcap : public testing::Test {
 protected:
  Pcap() {
    std::string name = (std::filesystem::temp_directory_path() / "vmm-pcap.XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~Pcap() override { std::filesystem::remove_all(folder_); }

  std::string file() const { return folder_ / "net.pcap"; }
  std::string content() const {
    std::ifstream in(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::uint32_t number(const std::string& text, std::size_t offset) {
    return static_cast<std::uint32_t>(load_le(std::as_bytes(std::span(text)).subspan(offset, 4)));
  }
  // Sizes of the frames in the file; a file with half a frame fails the test.
  std::vector<std::size_t> records() const {
    const std::string text = content();
    std::vector<std::size_t> sizes;
    std::size_t at = 24;
    while (at + 16 <= text.size()) {
      sizes.push_back(number(text, at + 8));
      at += 16 + sizes.back();
    }
    EXPECT_EQ(at, text.size());
    return sizes;
  }
  static void write(PcapWriter& writer, Frame& frame, std::chrono::nanoseconds when = 0s) {
    const ::iovec piece{frame.data(), frame.size()};
    writer.write(when, {&piece, 1});
  }

  std::filesystem::path folder_;
};

TEST_F(Pcap, NewFile_hasItsHeader) {
  ASSERT_TRUE(PcapWriter::create(file()));
  const std::string text = content();
  ASSERT_EQ(text.size(), 24U);
  EXPECT_EQ(number(text, 0), 0xa1b2'3c4dU);
  EXPECT_EQ(number(text, 4), 0x0004'0002U);
  EXPECT_EQ(number(text, 20), 1U);
}

TEST_F(Pcap, NewFile_isTheOwnersAlone) {
  ASSERT_TRUE(PcapWriter::create(file()));
  struct stat status {};
  ASSERT_EQ(::stat(file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0077, 0U);
}

TEST_F(Pcap, Frames_areThereAtOnceWithTheirTime) {
  auto writer = PcapWriter::create(file());
  ASSERT_TRUE(writer);
  Frame frame(60, std::byte{0x5a});
  write(*writer, frame, 1'700'000'000s + 42ns);
  const std::string text = content();
  ASSERT_EQ(text.size(), 24U + 16 + 60);
  EXPECT_EQ(number(text, 24), 1'700'000'000U);
  EXPECT_EQ(number(text, 28), 42U);
  EXPECT_EQ(number(text, 32), 60U);
  EXPECT_EQ(number(text, 36), 60U);
  EXPECT_EQ(text.back(), '\x5a');
}

TEST_F(Pcap, FullDisk_leavesAWellFormedFile) {
  auto writer = PcapWriter::create(file());
  ASSERT_TRUE(writer);
  Frame frame(100);
  write(*writer, frame);
  // The file may grow by half a record more.
  ::rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const ::rlimit small{24 + 116 + 60, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  write(*writer, frame);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(writer->failed());
  write(*writer, frame);
  EXPECT_EQ(records(), std::vector<std::size_t>{100});
}

TEST_F(Pcap, Device_isRefused) {
  const auto writer = PcapWriter::create("/dev/null");
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code(), ErrorCode::kBadConfig);
}

TEST_F(Pcap, Capture_hasBothDirections) {
  auto writer = PcapWriter::create(file());
  ASSERT_TRUE(writer);
  auto inner = std::make_unique<test::RecordingNetBackend>();
  test::RecordingNetBackend& network = *inner;
  CaptureBackend capture(std::move(inner), std::make_shared<PcapWriter>(*std::move(writer)));
  network.put(Frame(70));
  EXPECT_TRUE(test::send(capture, Frame(60)));
  NetHeader header;
  EXPECT_TRUE(test::receive(capture, header));
  EXPECT_FALSE(test::receive(capture, header));
  EXPECT_EQ(network.sent.size(), 1U);
  EXPECT_EQ(records(), (std::vector<std::size_t>{60, 70}));
}

}  // namespace
}  // namespace vmm

#include "vmm/net/stream_backend.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/scratch_directory.h"
#include "tests/unit/net/net_support.h"
#include "vmm/net/passt.h"

namespace vmm::test {
namespace {

// Notes when it ends.
struct NotedPeer final : StreamBackend::Peer {
  explicit NotedPeer(bool& flag) : ended(flag) {}
  ~NotedPeer() override { ended = true; }
  bool& ended;
};

// A backend and its peer's end.
class Stream {
 public:
  Stream() {
    std::array<int, 2> both{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both.data()), 0);
    peer_ = UniqueFd(both[1]);
    backend_ = StreamBackend::create(UniqueFd(both[0])).value();
  }
  Frame frame(std::size_t size) {
    Frame frame(size);
    for (std::size_t i = 0; i < size; ++i) frame[i] = static_cast<std::byte>(i * 7);
    return frame;
  }
  static Frame with_length(const Frame& frame) {
    Frame bytes;
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::byte>(frame.size() >> shift));
    }
    append(bytes, frame);
    return bytes;
  }
  void peer_writes(std::span<const std::byte> bytes) {
    ASSERT_EQ(::write(peer_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  Frame peer_reads(std::size_t most) {
    Frame bytes(most);
    const ssize_t got = ::recv(peer_.get(), bytes.data(), most, MSG_DONTWAIT);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  std::optional<Frame> arrived() {
    NetHeader header;
    return receive(*backend_, header);
  }

  UniqueFd peer_;
  std::unique_ptr<StreamBackend> backend_;
};

class StreamTest : public testing::Test, protected Stream {};

TEST_F(StreamTest, SentFrame_hasItsLengthBefore) {
  EXPECT_TRUE(send(*backend_, frame(60)));
  EXPECT_EQ(peer_reads(1000), with_length(frame(60)));
}

TEST_F(StreamTest, ReceivedFrames_comeOneByOne) {
  Frame bytes = with_length(frame(60));
  append(bytes, with_length(frame(1514)));
  peer_writes(bytes);
  EXPECT_TRUE(is_ready(*backend_));
  EXPECT_EQ(arrived(), frame(60));
  EXPECT_TRUE(backend_->has_frame());
  EXPECT_EQ(arrived(), frame(1514));
  EXPECT_FALSE(backend_->has_frame());
  EXPECT_EQ(arrived(), std::nullopt);
  EXPECT_FALSE(is_ready(*backend_));
}

TEST_F(StreamTest, FrameInPieces_comesWhenItIsWhole) {
  const Frame bytes = with_length(frame(300));
  for (std::size_t i = 0; i + 1 < bytes.size(); ++i) {
    peer_writes(std::span(bytes).subspan(i, 1));
    ASSERT_EQ(arrived(), std::nullopt);
  }
  peer_writes(std::span(bytes).last(1));
  EXPECT_EQ(arrived(), frame(300));
}

TEST_F(StreamTest, LargestFrame_passesBothWays) {
  const Frame largest = frame(NetBackend::kMostFrame);
  peer_writes(with_length(largest));
  EXPECT_EQ(arrived(), largest);
  EXPECT_TRUE(send(*backend_, largest));
  Frame got;
  while (got.size() < largest.size() + 4) append(got, peer_reads(70'000));
  EXPECT_EQ(got, with_length(largest));
}

TEST_F(StreamTest, LengthsThatCannotBe_takeTheLinkDown) {
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{13}, NetBackend::kMostFrame + 1, std::size_t{0xffff'ffff}}) {
    Stream other;
    Frame bytes;
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::byte>(length >> shift));
    }
    other.peer_writes(bytes);
    EXPECT_EQ(other.arrived(), std::nullopt);
    EXPECT_FALSE(other.backend_->link_up()) << length;
    EXPECT_FALSE(is_ready(*other.backend_));
    EXPECT_FALSE(send(*other.backend_, frame(60)));
  }
}

TEST_F(StreamTest, PeerThatEnds_isALinkThatIsDown) {
  peer_writes(with_length(frame(60)));
  peer_.reset();
  EXPECT_TRUE(is_ready(*backend_));
  EXPECT_EQ(arrived(), frame(60)) << "what it said before is heard";
  EXPECT_EQ(arrived(), std::nullopt);
  EXPECT_FALSE(backend_->link_up());
  EXPECT_FALSE(is_ready(*backend_));
}

TEST_F(StreamTest, PeerThatDoesNotRead_costsFramesAndNoBytes) {
  std::size_t sent = 0;
  while (send(*backend_, frame(1514))) ++sent;
  ASSERT_GT(sent, 0U);
  EXPECT_FALSE(send(*backend_, frame(1514)));
  // Those that were taken arrive whole, the last one with the help of whoever comes next.
  Frame got;
  for (int idle = 0; idle < 3;) {
    const Frame piece = peer_reads(65536);
    idle = piece.empty() ? idle + 1 : 0;
    append(got, piece);
    (void)arrived();
  }
  const Frame one = with_length(frame(1514));
  ASSERT_EQ(got.size(), sent * one.size());
  for (std::size_t i = 0; i < sent; ++i) {
    ASSERT_TRUE(std::equal(one.begin(), one.end(),
                           got.begin() + static_cast<std::ptrdiff_t>(i * one.size())));
  }
}

TEST_F(StreamTest, FramesThatNobodyWants_wakeNobody) {
  backend_->want_frames(false);
  peer_writes(with_length(frame(60)));
  EXPECT_FALSE(is_ready(*backend_));
  backend_->want_frames(true);
  EXPECT_TRUE(is_ready(*backend_));
}

TEST_F(StreamTest, Program_endsAfterItsSocket) {
  std::array<int, 2> both{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both.data()), 0);
  const UniqueFd other(both[1]);
  bool ended = false;
  auto backend =
      StreamBackend::create(UniqueFd(both[0]), std::make_unique<NotedPeer>(ended)).value();
  EXPECT_FALSE(ended);
  backend.reset();
  EXPECT_TRUE(ended);
}

TEST(StreamSocket, Missing_isSaid) {
  EXPECT_EQ(StreamBackend::connect("/nowhere/socket").error().code(), ErrorCode::kBadConfig);
  EXPECT_EQ(StreamBackend::connect("").error().code(), ErrorCode::kBadConfig);
  EXPECT_EQ(StreamBackend::connect(std::string(200, 'x')).error().code(), ErrorCode::kBadConfig);
}

TEST(StreamSocket, ListeningPeer_isConnectedTo) {
  const ScratchDirectory folder;
  const std::string path = folder.file("socket");
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address),
            0);
  EXPECT_EQ(StreamBackend::connect(path).error().code(), ErrorCode::kIo) << "nobody listens";
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const auto backend = StreamBackend::connect(path);
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_TRUE((*backend)->link_up());
}

TEST(Passt, Missing_namesThePackage) {
  const std::string before = std::getenv("PATH") != nullptr ? std::getenv("PATH") : "";
  ::setenv("PATH", "/nowhere", 1);
  const auto backend = start_passt();
  ::setenv("PATH", before.c_str(), 1);
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(backend.error().message().find("package passt"), std::string::npos);
}

// A program of that name that does what the text says.
class FakePasst : public testing::Test {
 protected:
  Result<std::unique_ptr<StreamBackend>> start(const std::string& script) {
    const std::filesystem::path program = folder_.file("passt");
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    const std::string before = std::getenv("PATH") != nullptr ? std::getenv("PATH") : "";
    ::setenv("PATH", (program.parent_path().string() + ":" + before).c_str(), 1);
    auto backend = start_passt();
    ::setenv("PATH", before.c_str(), 1);
    return backend;
  }
  ScratchDirectory folder_;
};

TEST_F(FakePasst, ThatReads_isReadyAndEndsWithItsSocket) {
  auto backend = start("exec cat <&3 >/dev/null");
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_TRUE((*backend)->link_up());
  backend->reset();  // returns when it has ended
}

TEST_F(FakePasst, ThatEnds_isQuoted) {
  const auto backend = start("echo something else >&2; echo there is no way out >&2; exit 1");
  ASSERT_FALSE(backend);
  EXPECT_NE(backend.error().message().find("there is no way out"), std::string::npos)
      << backend.error().message();
}

TEST_F(FakePasst, ThatStaysOn_isKilled) {
  auto backend =
      start("head -c 64 <&3 >/dev/null; trap '' TERM; exec 3<&-; while :; do sleep 1; done");
  ASSERT_TRUE(backend) << backend.error().message();
  backend->reset();  // hangs if it is not
}

}  // namespace
}  // namespace vmm::test

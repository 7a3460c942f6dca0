// Disks at a real server: nbdkit, started for each test.
#include "vmm/block/nbd_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "tests/support/disk_io.h"
#include "tests/support/scratch_directory.h"

namespace vmm::block {
namespace {

using test::Bytes;
using test::DiskIo;
using test::pattern;
using testing::HasSubstr;

constexpr std::size_t kSize = 4 << 20;

bool installed(const std::string& program) {
  for (const char* const folder : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"}) {
    if (::access((folder + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

// A server in the foreground on a Unix socket, killed with this.
class Server {
 public:
  Server(std::string socket, std::vector<std::string> plugin) : socket_(std::move(socket)) {
    (void)::unlink(socket_.c_str());
    std::vector<std::string> words{"nbdkit", "-f", "--exit-with-parent", "-U", socket_};
    words.insert(words.end(), plugin.begin(), plugin.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    child_ = ::fork();
    if (child_ == 0) {
      ::execvp("nbdkit", arguments.data());
      ::_exit(127);
    }
    while (!listens() && ::waitpid(child_, nullptr, WNOHANG) == 0) ::usleep(1000);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() { kill(); }
  void kill() {
    if (child_ <= 0) return;
    (void)::kill(child_, SIGKILL);
    (void)::waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  // Returns when it stands still.
  void stop() const {
    int status = 0;
    (void)::kill(child_, SIGSTOP);
    (void)::waitpid(child_, &status, WUNTRACED);
  }
  std::string uri() const { return "nbd+unix:///?socket=" + socket_; }

 private:
  bool listens() const {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_.c_str(), sizeof address.sun_path - 1);
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  std::string socket_;
  pid_t child_ = -1;
};

class NbdDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!installed("nbdkit")) GTEST_SKIP() << "there is no nbdkit: install the package";
    if (!NbdLibrary::load()) GTEST_SKIP() << NbdLibrary::load().error().message();
    test::write_file(image_, pattern(kSize, 1));
  }
  std::unique_ptr<Server> serve(std::vector<std::string> plugin) {
    return std::make_unique<Server>(directory_.file("socket"), std::move(plugin));
  }
  std::unique_ptr<Server> serve_image(std::vector<std::string> more = {}) {
    std::vector<std::string> words{"file", "file=" + image_};
    words.insert(words.begin(), more.begin(), more.end());
    return serve(words);
  }
  Result<std::unique_ptr<NbdDisk>> open(const Server& server, NbdOptions options = {}) {
    options.uri = server.uri();
    const Log log([this](LogLevel, std::string_view,
                         std::string_view line) { log_ += std::string(line) + "\n"; },
                  LogLevel::kInfo);
    return NbdDisk::open(options, log);
  }
  std::string problem(const Server& server, const NbdOptions& options = {}) {
    const auto disk = open(server, options);
    return disk ? "" : disk.error().message();
  }

  test::ScratchDirectory directory_;
  std::string image_ = directory_.file("image");
  std::string log_;  // written by a thread that has ended or waits whenever it is read
};

TEST_F(NbdDiskTest, Disk_isReadAndWritten) {
  const auto server = serve_image();
  Bytes expected = pattern(kSize, 1);
  {
    const auto disk = open(*server, {.discard = true});
    ASSERT_TRUE(disk) << disk.error().message();
    EXPECT_EQ((*disk)->limits().size, kSize);
    EXPECT_TRUE((*disk)->limits().discard);
    DiskIo io(**disk);
    EXPECT_EQ(io.read(0, kSize), expected);
    const Bytes news = pattern(512 * 9, 2);
    EXPECT_EQ(io.write(512 * 101, news), 0);
    std::copy(news.begin(), news.end(), expected.begin() + 512 * 101);
    EXPECT_EQ(io.zero(1 << 20, 1 << 19), 0);
    EXPECT_EQ(io.zero(2 << 20, 1 << 19, true), 0);
    std::fill_n(expected.begin() + (1 << 20), 1 << 19, std::byte{0});
    std::fill_n(expected.begin() + (2 << 20), 1 << 19, std::byte{0});
    EXPECT_EQ(io.discard(3 << 20, 4096), 0);
    EXPECT_EQ(io.flush(), 0);
    EXPECT_EQ(io.read(0, 3 << 20), Bytes(expected.begin(), expected.begin() + (3 << 20)));
  }
  const Bytes file = test::read_file(image_);
  EXPECT_TRUE(std::equal(expected.begin(), expected.begin() + (3 << 20), file.begin()));
  EXPECT_EQ(log_, "");
}

// More than the session's memory at once, in memory that is scattered.
TEST_F(NbdDiskTest, LargeScatteredRequests_allArrive) {
  const auto server = serve({"memory", "64M"});
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  const std::vector<std::size_t> sizes{512, 1000, 24, (20 << 20) - 1536};
  test::Pieces out(sizes, 3);
  test::Pieces in(sizes, 5);
  const Bytes bytes = pattern(20 << 20, 7);
  out.fill(bytes);
  DiskIo io(**disk);
  EXPECT_EQ(
      io.run(
          {.op = BlockOp::kWrite, .offset = 512, .length = out.size(), .buffers = out.buffers()}),
      0);
  EXPECT_EQ(
      io.run({.op = BlockOp::kRead, .offset = 512, .length = in.size(), .buffers = in.buffers()}),
      0);
  EXPECT_EQ(in.bytes(), bytes);
}

TEST_F(NbdDiskTest, ManyAtOnce_allEnd) {
  constexpr std::size_t kCount = 700;
  const auto server = serve_image();
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  test::RecordingClient client;
  test::Pieces memory(std::vector<std::size_t>(kCount, 512));
  for (std::size_t i = 0; i < kCount; ++i) {
    (*disk)->submit({.op = BlockOp::kRead,
                     .offset = i * 1024,
                     .length = 512,
                     .buffers = {memory.buffers()[i]},
                     .client = &client,
                     .tag = i});
  }
  (*disk)->commit();
  (*disk)->drain();
  const Bytes image = pattern(kSize, 1);
  Bytes expected;
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(client.result(i), 0) << i;
    const auto at = image.begin() + static_cast<long>(i * 1024);
    expected.insert(expected.end(), at, at + 512);
  }
  EXPECT_EQ(memory.bytes(), expected);
}

TEST_F(NbdDiskTest, BadRequests_areRefusedHere) {
  const auto server = serve_image();
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  EXPECT_EQ(io.read_error(kSize, 512), EINVAL);
  EXPECT_EQ(io.read_error(~std::uint64_t{0} - 511, 512), EINVAL);
  EXPECT_EQ(io.read_error(1, 512), EINVAL);
  EXPECT_EQ(io.write(kSize - 512, Bytes(1024)), EINVAL);
  EXPECT_EQ(io.zero(512, ~std::uint64_t{0} - 511), EINVAL);
  test::Pieces small({512});
  EXPECT_EQ(io.run({.op = BlockOp::kRead, .length = 1024, .buffers = small.buffers()}), EINVAL);
  EXPECT_EQ(io.read(0, kSize), pattern(kSize, 1));
}

TEST_F(NbdDiskTest, ReadOnlyServer_wantsAReadOnlyDisk) {
  const auto server = serve_image({"-r"});
  EXPECT_THAT(problem(*server), HasSubstr("',ro'"));
  const auto disk = open(*server, {.read_only = true});
  ASSERT_TRUE(disk) << disk.error().message();
  EXPECT_TRUE((*disk)->limits().read_only);
  DiskIo io(**disk);
  EXPECT_EQ(io.write(0, Bytes(512)), EROFS);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(io.read(0, 512).size(), 512U);
}

TEST_F(NbdDiskTest, ServerWithoutFlushAndZero_isWrittenTo_andTheUserIsTold) {
  const auto server =
      serve({"eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 3",
             "open=test -e " + image_ + "2 || truncate -s 1M " + image_ + "2",
             "pread=dd if=" + image_ + "2 bs=1M iflag=skip_bytes,count_bytes skip=$4 count=$3",
             "pwrite=dd of=" + image_ + "2 bs=1M oflag=seek_bytes conv=notrunc seek=$4"});
  const auto disk = open(*server, {.discard = true});
  ASSERT_TRUE(disk) << disk.error().message();
  EXPECT_THAT(log_, HasSubstr("knows no flush"));
  DiskIo io(**disk);
  EXPECT_EQ(io.write(512, pattern(1024, 3)), 0);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(io.zero(512, 512), 0);
  Bytes expected = pattern(1024, 3);
  std::fill_n(expected.begin(), 512, std::byte{0});
  EXPECT_EQ(io.read(512, 1024), expected);
}

TEST_F(NbdDiskTest, LargeBlocks_areTold_andSmallerAccessIsRefused) {
  const auto server =
      serve({"--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096",
             "blocksize-preferred=65536", "blocksize-maximum=1M", "blocksize-error-policy=error"});
  const auto disk = open(*server);
  if (!disk) GTEST_SKIP() << "this nbdkit knows no block sizes: " << disk.error().message();
  if ((*disk)->limits().block_size == 512) GTEST_SKIP() << "block sizes are not negotiated";
  EXPECT_EQ((*disk)->limits().block_size, 4096U);
  EXPECT_EQ((*disk)->limits().physical_block, 65536U);
  DiskIo io(**disk);
  EXPECT_EQ(io.write(4096, pattern(8192, 1)), 0);
  EXPECT_EQ(io.read_error(512, 512), EINVAL);
}

TEST_F(NbdDiskTest, ServersError_isTheRequests) {
  const auto server =
      serve({"--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"});
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  EXPECT_EQ(io.write(0, pattern(512, 1)), ENOSPC);
  EXPECT_EQ(io.read(0, 512), Bytes(512));
}

TEST_F(NbdDiskTest, NobodyThere_isSaidAtOnce) {
  const auto server = serve_image();
  server->kill();
  EXPECT_THAT(problem(*server), HasSubstr("nbd+unix:///?socket="));
  const auto nonsense = NbdDisk::open({.uri = "nbd+smoke://x"}, Log());
  ASSERT_FALSE(nonsense);
  EXPECT_THAT(nonsense.error().message(), HasSubstr("nbd+smoke"));
}

TEST_F(NbdDiskTest, EmptyExport_isRefused) {
  const auto server = serve({"null", "0"});
  EXPECT_THAT(problem(*server), HasSubstr("is empty"));
}

class NbdServerKilled : public NbdDiskTest {
 protected:
  // Until the disk answers again.
  static void wait_until_back(DiskIo& io) {
    while (io.read_error(0, 512) != 0) std::this_thread::yield();
  }
};

TEST_F(NbdServerKilled, Requests_failAtOnce_andSucceedWhenItIsBack) {
  auto server = serve_image();
  auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  EXPECT_EQ(io.write(0, pattern(512, 2)), 0);
  EXPECT_EQ(io.flush(), 0);
  server->kill();
  EXPECT_EQ(io.read_error(0, 512), EIO);
  EXPECT_EQ(io.write(0, pattern(512, 3)), EIO);
  EXPECT_FALSE((*disk)->refresh_size());
  server = serve_image();
  wait_until_back(io);
  EXPECT_EQ(io.read(0, 512), pattern(512, 2));
  EXPECT_EQ(io.write(0, pattern(512, 4)), 0);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_TRUE((*disk)->refresh_size());
  disk->reset();
  EXPECT_THAT(log_, HasSubstr("is gone"));
  EXPECT_THAT(log_, HasSubstr("again"));
}

// What the old server acknowledged may be gone with it. Only a flush can tell the guest.
TEST_F(NbdServerKilled, FlushAfterUnflushedWrites_failsOnce) {
  auto server = serve({"memory", "1M"});
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  EXPECT_EQ(io.write(0, pattern(512, 2)), 0);
  server->kill();
  server = serve({"memory", "1M"});
  wait_until_back(io);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.write(0, pattern(512, 2)), 0);
  EXPECT_EQ(io.flush(), 0);
}

TEST_F(NbdServerKilled, SmallerDiskAfterwards_isAnErrorBehindItsEnd) {
  auto server = serve({"memory", "2M"});
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  server->kill();
  server = serve({"memory", "1M"});
  wait_until_back(io);
  EXPECT_EQ(io.read_error(1 << 20, 512), EIO);
  EXPECT_EQ((*disk)->limits().size, 2U << 20);
  ASSERT_TRUE((*disk)->refresh_size());
  EXPECT_EQ((*disk)->limits().size, 1U << 20);
}

TEST_F(NbdServerKilled, UnderWay_allEnds) {
  auto server = serve({"--filter=delay", "memory", "8M", "delay-read=60"});
  const auto disk = open(*server);
  ASSERT_TRUE(disk) << disk.error().message();
  test::RecordingClient client;
  test::Pieces memory(std::vector<std::size_t>(100, 64 * 1024));
  for (std::uint64_t i = 0; i < 100; ++i) {
    (*disk)->submit({.op = BlockOp::kRead,
                     .offset = i * 512,
                     .length = 64 * 1024,
                     .buffers = {memory.buffers()[i]},
                     .client = &client,
                     .tag = i});
  }
  (*disk)->commit();
  server->kill();
  (*disk)->drain();
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(client.result(i), EIO) << i;
}

// A server that stands still: whoever ends the machine does not wait for it for ever.
TEST_F(NbdServerKilled, SilentServer_isGivenUpByDrain) {
  const auto server = serve_image();
  const auto disk = open(*server, {.drain_patience = std::chrono::milliseconds(100)});
  ASSERT_TRUE(disk) << disk.error().message();
  server->stop();
  test::RecordingClient client;
  test::Pieces memory({512});
  (*disk)->submit({.length = 512, .buffers = memory.buffers(), .client = &client, .tag = 1});
  (*disk)->commit();
  (*disk)->drain();
  EXPECT_EQ(client.result(1), EIO);
}

TEST_F(NbdDiskTest, Tls_isUsedWhenTheUriSaysSo) {
  const std::string keys = directory_.file("keys");
  const std::string line = "vmm:" + std::string(64, 'a') + "\n";
  const auto* const bytes = reinterpret_cast<const std::byte*>(line.data());
  test::write_file(keys, Bytes(bytes, bytes + line.size()));
  const auto server = serve_image({"--tls=require", "--tls-psk=" + keys});
  EXPECT_NE(problem(*server), "");
  const std::string uri =
      "nbds+unix://vmm@/?socket=" + directory_.file("socket") + "&tls-psk-file=" + keys;
  const auto disk = NbdDisk::open({.uri = uri}, Log());
  ASSERT_TRUE(disk) << disk.error().message();
  DiskIo io(**disk);
  EXPECT_EQ(io.read(0, kSize), pattern(kSize, 1));
  EXPECT_EQ(io.write(0, pattern(1 << 20, 2)), 0);
  EXPECT_EQ(io.read(0, 1 << 20), pattern(1 << 20, 2));
}

// Bytes that are no NBD at all.
TEST_F(NbdDiskTest, StrangerAtTheSocket_isAnError) {
  const std::string path = directory_.file("stranger");
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  std::thread stranger([&] {
    const UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::string noise(4096, 'x');
    (void)!::send(peer.get(), noise.data(), noise.size(), MSG_NOSIGNAL);
  });
  const auto disk = NbdDisk::open({.uri = "nbd+unix:///?socket=" + path}, Log());
  stranger.join();
  EXPECT_FALSE(disk);
}

}  // namespace
}  // namespace vmm::block

#include "vmm/vhost/peer_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>

#include "tests/support/scratch_directory.h"
#include "vmm/unix_listener.h"
#include "vmm/vhost/vhost_peer.h"

namespace vmm::vhost {
namespace {

using testing::HasSubstr;

TEST(SocketLink, Listener_isReached) {
  const test::ScratchDirectory folder;
  const std::string path = folder.file("s");
  auto listener = UnixListener::create(path, 1).value();
  SocketLink link(path);
  EXPECT_TRUE(link.connect());
  EXPECT_TRUE(listener.accept());
}

TEST(SocketLink, Nobody_isNamed) {
  SocketLink link("/nonexistent/socket");
  const auto socket = link.connect();
  ASSERT_FALSE(socket);
  EXPECT_THAT(socket.error().message(), HasSubstr("/nonexistent/socket"));
}

TEST(FileServerLink, WhatIsNoDirectory_isRefused) {
  if (!FileServerLink::create("/", false)) GTEST_SKIP() << "there is no virtiofsd";
  EXPECT_THAT(FileServerLink::create("/dev/null", false).error().message(),
              HasSubstr("/dev/null is not a directory"));
  EXPECT_THAT(FileServerLink::create("/nonexistent", false).error().message(),
              HasSubstr("/nonexistent"));
}

// Readable at the end, when nobody has the other side of the socket any more.
bool ends(const UniqueFd& socket) {
  ::pollfd fd{.fd = socket.get(), .events = POLLIN, .revents = 0};
  return ::poll(&fd, 1, 60'000) == 1 && (fd.revents & POLLHUP) != 0;
}

TEST(FileServerLink, Server_endsWithItsLink) {
  const test::ScratchDirectory folder;
  auto link = FileServerLink::create(folder.file(""), false);
  if (!link) GTEST_SKIP() << link.error().message();
  const auto socket = (*link)->connect();
  ASSERT_TRUE(socket);
  link->reset();
  EXPECT_TRUE(ends(*socket));
}

TEST(FileServerLink, SecondConnection_endsTheFirstServer) {
  const test::ScratchDirectory folder;
  auto link = FileServerLink::create(folder.file(""), false);
  if (!link) GTEST_SKIP() << link.error().message();
  const auto first = (*link)->connect();
  const auto second = (*link)->connect();
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(ends(*first));
}

// FUSE_INIT (Linux, include/uapi/linux/fuse.h), the first request of every file system.
TEST(FileServerLink, Server_answersRequests) {
  const test::ScratchDirectory folder;
  auto link = FileServerLink::create(folder.file(""), false);
  if (!link || ::geteuid() != 0) GTEST_SKIP() << "needs virtiofsd, and root to start it";
  const auto peer = VhostPeer::open(*std::move(link), {.queues = 2});
  ASSERT_TRUE(peer) << peer.error().message();
  std::vector<GuestRegion> regions;
  regions.push_back(
      GuestRegion::create(*GpaRange::create(Gpa(0), 0x10'0000), {.backing = MemoryBacking::kMemfd})
          .value());
  const GuestMemory memory = GuestMemory::create(std::move(regions)).value();
  constexpr std::uint32_t kInit = 26;
  const std::array<std::uint32_t, 14> request{56, kInit, 7, 0, 1, 0, 0, 0, 0, 0, 7, 31, 0x20000, 0};
  ASSERT_TRUE(memory.write(Gpa(0x1000), std::as_bytes(std::span(request))));
  // A new server for each driver: the second one knows nothing of the first.
  for (int driver = 0; driver < 2; ++driver) {
    (*peer)->start(memory, (*peer)->features(), 2, false);
    const auto until = [&](const auto& condition) {
      for (int i = 0; i < 600 && !condition(); ++i) {
        ::pollfd fd{.fd = (*peer)->ready_fd(), .events = POLLIN, .revents = 0};
        (void)::poll(&fd, 1, 100);
        (*peer)->clear_ready();
      }
      return condition();
    };
    const auto in = [&](virtio::RemotePeer::State state) {
      return until([&] { return (*peer)->take_news().state == state; });
    };
    ASSERT_TRUE(in(virtio::RemotePeer::State::kRunning));
    virtio::Chain chain;
    chain.readable = 1;
    chain.segments = {{0x1000, 56}, {0x2000, 80}};
    ASSERT_TRUE((*peer)->submit(1, chain));
    (*peer)->kick(1);
    std::optional<virtio::RemotePeer::Done> done;
    ASSERT_TRUE(until([&] { return done || (done = (*peer)->next_done(1)); }));
    EXPECT_EQ(done->written, 80U);
    EXPECT_EQ(memory.read<std::uint32_t>(Gpa(0x2004)).value(), 0U) << "no error";
    EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x2008)).value(), 7U) << "the answer to this one";
    (*peer)->stop();
    ASSERT_TRUE(in(virtio::RemotePeer::State::kStopped));
  }
}

}  // namespace
}  // namespace vmm::vhost

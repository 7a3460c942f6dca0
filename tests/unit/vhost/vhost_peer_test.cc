#include "vmm/vhost/vhost_peer.h"

#include <gtest/gtest.h>

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <tuple>

#include "devices/virtio/spec.h"
#include "tests/support/vhost/back_end.h"

namespace vmm::vhost {
namespace {

using namespace std::chrono_literals;
using test::BackEnd;
using test::Mischief;
using State = virtio::RemotePeer::State;

constexpr std::uint64_t kFlush = 1ULL << 9;
constexpr std::uint64_t kFeatures =
    virtio::kFeatureVersion1 | virtio::kFeatureEventIdx | virtio::kFeatureIndirectDesc | kFlush;

GuestMemory shared_memory() {
  std::vector<GuestRegion> regions;
  for (const std::uint64_t base : {0x0ULL, 0x80'0000ULL}) {
    regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(base), 0x40'0000),
                                          {.backing = MemoryBacking::kMemfd})
                          .value());
  }
  return GuestMemory::create(std::move(regions)).value();
}

// A link to a back-end that is made for each connection, with the settings of that moment.
class FakeLink final : public PeerLink {
 public:
  struct Shared {
    BackEnd::Settings settings;
    std::unique_ptr<BackEnd> back_end;
    bool reachable = true;
    int connections = 0;
  };
  explicit FakeLink(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  Result<UniqueFd> connect() override {
    if (!shared_->reachable) return fail(ErrorCode::kIo, "Nobody is there");
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    shared_->back_end = std::make_unique<BackEnd>(UniqueFd(ends[1]), shared_->settings);
    ++shared_->connections;
    return UniqueFd(ends[0]);
  }
  const std::string& place() const noexcept override { return place_; }

 private:
  std::shared_ptr<Shared> shared_;
  std::string place_ = "the test";
};

class VhostPeerTest : public testing::Test {
 protected:
  Result<void> open(std::chrono::milliseconds patience = 60s) {
    auto opened = VhostPeer::open(std::make_unique<FakeLink>(shared_),
                                  {.config_size = 60,
                                   .queues = 2,
                                   .required = virtio::kFeatureVersion1,
                                   .patience = patience,
                                   .retry = 1ms,
                                   .log = Log(
                                       [this](LogLevel, std::string_view, std::string_view line) {
                                         const std::lock_guard lock(mutex_);
                                         said_.emplace_back(line);
                                       },
                                       LogLevel::kWarning)});
    if (!opened) return tl::unexpected(opened.error());
    peer_ = std::move(*opened);
    return {};
  }
  // Waits for news until the condition holds.
  bool until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < end) {
      const auto news = peer_->take_news();
      state_ = news.state;
      config_changed_ |= news.config_changed;
      restarted_.insert(restarted_.end(), news.restarted.begin(), news.restarted.end());
      if (condition()) return true;
      ::pollfd fd{.fd = peer_->ready_fd(), .events = POLLIN, .revents = 0};
      (void)::poll(&fd, 1, 100);
      peer_->clear_ready();
    }
    return false;
  }
  bool reaches(State state) {
    return until([&] { return state_ == state; });
  }
  void start(bool patient = false) { peer_->start(memory_, kFeatures, 2, patient); }
  std::optional<std::uint16_t> ask(std::uint16_t queue = 1) {
    virtio::Chain chain;
    chain.readable = 1;
    chain.segments = {{0x1000, 16}, {0x80'2000, 100}};
    const auto slot = peer_->submit(queue, chain);
    peer_->kick(queue);
    return slot;
  }
  std::optional<VhostPeer::Done> answer(std::uint16_t queue = 1) {
    std::optional<VhostPeer::Done> done;
    until([&] {
      if (state_ == State::kRunning) done = peer_->next_done(queue);
      return done || state_ == State::kGone;
    });
    return done;
  }
  std::size_t lines() {
    const std::lock_guard lock(mutex_);
    return said_.size();
  }

  GuestMemory memory_ = shared_memory();
  std::shared_ptr<FakeLink::Shared> shared_ = std::make_shared<FakeLink::Shared>();
  std::mutex mutex_;
  std::vector<std::string> said_;
  std::unique_ptr<VhostPeer> peer_;
  State state_ = State::kStopped;
  bool config_changed_ = false;
  std::vector<std::uint16_t> restarted_;
};

TEST_F(VhostPeerTest, Open_findsOutWhatTheBackEndIs) {
  shared_->settings.config[0] = std::byte{7};
  ASSERT_TRUE(open());
  EXPECT_EQ(peer_->features() & kFlush, kFlush);
  EXPECT_EQ(peer_->most_queues(), 4);
  EXPECT_EQ(peer_->config()[0], std::byte{7});
}

TEST_F(VhostPeerTest, Request_isAnswered) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  const auto slot = ask();
  const auto done = answer();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->slot, slot);
  EXPECT_EQ(done->written, 100U);
  EXPECT_EQ(memory_.read<std::uint8_t>(Gpa(0x80'2000 + 99)).value(), 0xab);
  EXPECT_EQ(memory_.read<std::uint8_t>(Gpa(0x80'2000 + 100)).value(), 0);
}

// Neither can be mapped by another process.
TEST_F(VhostPeerTest, MemoryThatMayGo_isNotShared) {
  std::vector<GuestRegion> regions;
  for (const std::uint64_t base : {0x0ULL, 0x80'0000ULL}) {
    regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(base), 0x40'0000),
                                          {.backing = MemoryBacking::kMemfd})
                          .value());
  }
  const UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 0x20'0000), 0);
  regions.push_back(
      GuestRegion::of_file(
          *GpaRange::create(Gpa(0x1'0000'0000), 0x20'0000),
          FileMapping::create(file.get(), 0x20'0000, FileMapping::Writes::kShared).value())
          .value());
  regions.push_back(GuestRegion::reserve(*GpaRange::create(Gpa(0x2'0000'0000), 0x40'0000),
                                         0x20'0000, {.backing = MemoryBacking::kMemfd})
                        .value());
  memory_ = GuestMemory::create(std::move(regions)).value();
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  ask();
  EXPECT_TRUE(answer());
  EXPECT_EQ(shared_->back_end->regions, 3U);  // two of RAM, and the rings
}

TEST_F(VhostPeerTest, BackEnd_isToldNothingOfTheDriversRings) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  EXPECT_EQ(shared_->back_end->acked, virtio::kFeatureVersion1 | kFlush | kFeatureProtocol);
}

TEST_F(VhostPeerTest, WithoutAcknowledgements_requestsAreAnswered) {
  shared_->settings.protocol &= ~kProtocolReplyAck;
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  ask();
  EXPECT_TRUE(answer());
}

TEST_F(VhostPeerTest, Stop_takesTheRingsAway) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  peer_->stop();
  ASSERT_TRUE(reaches(State::kStopped));
  EXPECT_EQ(shared_->back_end->stopped, 2);
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  ask();
  EXPECT_TRUE(answer());
  EXPECT_EQ(shared_->connections, 1);
}

TEST_F(VhostPeerTest, StopAndStartAtOnce_endRunning) {
  ASSERT_TRUE(open());
  start();
  peer_->stop();
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  ask();
  EXPECT_TRUE(answer());
}

TEST_F(VhostPeerTest, RestartedQueue_startsEmpty) {
  shared_->settings.answer_rings = false;
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  const auto first = ask();
  peer_->restart_queue(1);
  ASSERT_TRUE(until([&] { return !restarted_.empty(); }));
  EXPECT_EQ(restarted_, std::vector<std::uint16_t>{1});
  EXPECT_EQ(ask(), first);
}

TEST_F(VhostPeerTest, ChangedConfig_isTold) {
  ASSERT_TRUE(open());
  shared_->back_end->change_config(9);
  ASSERT_TRUE(until([&] { return config_changed_; }));
  EXPECT_EQ(peer_->config()[0], std::byte{9});
}

TEST_F(VhostPeerTest, WrittenConfig_reachesTheBackEnd) {
  ASSERT_TRUE(open());
  const std::byte on{1};
  peer_->write_config(32, {&on, 1});
  EXPECT_EQ(peer_->config()[32], on);
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  EXPECT_EQ(shared_->back_end->written_config, 1);
}

TEST_F(VhostPeerTest, BackEndThatEnds_isGoneAndOneLineIsSaid) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->back_end->end();
  ASSERT_TRUE(reaches(State::kGone));
  EXPECT_EQ(lines(), 1U);
}

TEST_F(VhostPeerTest, BackEndThatIsNotMissed_isReachedAgainByTheNextStart) {
  ASSERT_TRUE(open());
  shared_->back_end->end();
  start();
  until([&] { return state_ == State::kRunning || state_ == State::kGone; });
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  EXPECT_EQ(shared_->connections, 2);
}

TEST_F(VhostPeerTest, PatientStart_waitsForTheBackEnd) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->back_end->end();
  ASSERT_TRUE(reaches(State::kGone));
  start(true);
  ASSERT_TRUE(reaches(State::kRunning));
  ask();
  EXPECT_TRUE(answer());
}

TEST_F(VhostPeerTest, PatientStart_isEndedByAStop) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->reachable = false;
  shared_->back_end->end();
  ASSERT_TRUE(reaches(State::kGone));
  start(true);
  peer_->stop();
  EXPECT_TRUE(reaches(State::kStopped));
}

TEST_F(VhostPeerTest, BackEndWithFewerFeaturesAfterItsReturn_isRefused) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->settings.features = virtio::kFeatureVersion1;
  shared_->back_end->end();
  ASSERT_TRUE(reaches(State::kGone));
  start();
  EXPECT_TRUE(reaches(State::kGone));
}

TEST_F(VhostPeerTest, AnswerToNoRequest_isTheEndOfTheConnection) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->back_end->used_id = 1000;
  ask();
  EXPECT_FALSE(answer());
  EXPECT_TRUE(reaches(State::kGone));
}

TEST_F(VhostPeerTest, MoreAnswersThanRequests_areTheEndOfTheConnection) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  shared_->back_end->used_count = 5;
  ask();
  EXPECT_FALSE(answer());
  EXPECT_TRUE(reaches(State::kGone));
}

TEST_F(VhostPeerTest, PrivateMemory_cannotBeServed) {
  ASSERT_TRUE(open());
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), 0x1000), {}).value());
  const GuestMemory memory = GuestMemory::create(std::move(regions)).value();
  peer_->start(memory, kFeatures, 2, false);
  EXPECT_TRUE(reaches(State::kGone));
}

TEST_F(VhostPeerTest, LackingBackEnds_areRefused) {
  shared_->settings.protocol_features = false;
  EXPECT_EQ(open().error().code(), ErrorCode::kUnsupported);
  shared_->settings = {};
  shared_->settings.protocol &= ~kProtocolConfig;
  EXPECT_EQ(open().error().code(), ErrorCode::kUnsupported);
  shared_->settings = {};
  shared_->settings.queues = 1;
  EXPECT_EQ(open().error().code(), ErrorCode::kUnsupported);
  shared_->settings = {};
  shared_->settings.features = kFlush;
  EXPECT_EQ(open().error().code(), ErrorCode::kUnsupported);
  shared_->reachable = false;
  EXPECT_EQ(open().error().code(), ErrorCode::kIo);
}

TEST_F(VhostPeerTest, EndWhileTheBackEndIsSilent_doesNotWaitForIt) {
  shared_->settings.at = Request::kSetMemTable;
  shared_->settings.mischief = Mischief::kSilence;
  ASSERT_TRUE(open());
  start();
  peer_.reset();
  EXPECT_EQ(lines(), 0U) << "an end that was asked for is nothing to tell";
}

// Silence is told from slowness by time only.
constexpr std::chrono::milliseconds kLittle{1500};

TEST_F(VhostPeerTest, SilenceAtTheHandshake_isATimeout) {
  shared_->settings.at = Request::kGetQueueNum;
  shared_->settings.mischief = Mischief::kSilence;
  EXPECT_EQ(open(kLittle).error().code(), ErrorCode::kTimeout);
}

TEST_F(VhostPeerTest, SilenceAtTheStart_endsGone) {
  shared_->settings.at = Request::kSetVringAddr;
  shared_->settings.mischief = Mischief::kSilence;
  ASSERT_TRUE(open(kLittle));
  start();
  EXPECT_TRUE(reaches(State::kGone));
}

TEST_F(VhostPeerTest, SilenceAtTheStop_endsGone) {
  shared_->settings.at = Request::kGetVringBase;
  shared_->settings.mischief = Mischief::kSilence;
  ASSERT_TRUE(open(kLittle));
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  peer_->stop();
  EXPECT_TRUE(reaches(State::kGone));
}

// Every answer, wrong in every way.
class Hostile : public VhostPeerTest,
                public testing::WithParamInterface<std::tuple<Request, Mischief>> {
 protected:
  Hostile() { std::tie(shared_->settings.at, shared_->settings.mischief) = GetParam(); }
};
std::string name_of(const testing::TestParamInfo<std::tuple<Request, Mischief>>& info) {
  return fmt::format("request{}_mischief{}", static_cast<int>(std::get<0>(info.param)),
                     static_cast<int>(std::get<1>(info.param)));
}
const auto kMischiefs =
    testing::Values(Mischief::kTruncated, Mischief::kShort, Mischief::kLong, Mischief::kEndless,
                    Mischief::kOtherKind, Mischief::kOtherVersion, Mischief::kNoReply,
                    Mischief::kDescriptors, Mischief::kEnd);

using HostileHandshake = Hostile;
TEST_P(HostileHandshake, isRefused) { EXPECT_FALSE(open()); }
INSTANTIATE_TEST_SUITE_P(
    Answers, HostileHandshake,
    testing::Combine(testing::Values(Request::kGetFeatures, Request::kGetProtocolFeatures,
                                     Request::kGetQueueNum, Request::kSetBackendReqFd,
                                     Request::kGetConfig),
                     kMischiefs),
    name_of);

using HostileStart = Hostile;
TEST_P(HostileStart, endsGone) {
  ASSERT_TRUE(open());
  start();
  EXPECT_TRUE(reaches(State::kGone));
}
INSTANTIATE_TEST_SUITE_P(
    Answers, HostileStart,
    testing::Combine(testing::Values(Request::kSetFeatures, Request::kSetMemTable,
                                     Request::kSetVringAddr, Request::kSetVringKick,
                                     Request::kSetVringEnable),
                     kMischiefs),
    name_of);

using HostileStop = Hostile;
TEST_P(HostileStop, endsGone) {
  ASSERT_TRUE(open());
  start();
  ASSERT_TRUE(reaches(State::kRunning));
  peer_->stop();
  EXPECT_TRUE(reaches(State::kGone));
}
INSTANTIATE_TEST_SUITE_P(Answers, HostileStop,
                         testing::Combine(testing::Values(Request::kGetVringBase), kMischiefs),
                         name_of);

}  // namespace
}  // namespace vmm::vhost

#include "devices/virtio/vsock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_vsock_backend.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Vsock;
using virtio::VsockConnection;
using virtio::VsockHeader;
using virtio::VsockOp;

constexpr std::uint64_t kCid = 42;
constexpr std::uint32_t kGuestPort = 1000, kHostPort = 52;
constexpr std::uint32_t kGuestBuffer = KiB(64);
constexpr std::uint32_t kBuffer = VsockConnection::kBufferSize;
constexpr std::uint32_t kBothEnds = VsockHeader::kNoMoreReceiving | VsockHeader::kNoMoreSending;

// A packet as the driver sees it.
struct Packet {
  VsockHeader header;
  std::string data;
  VsockOp op() const { return static_cast<VsockOp>(std::uint16_t{header.op}); }
};

// A driver with its three rings over a device whose host is the test's.
template <typename Ring>
class VsockRig {
 public:
  static constexpr std::uint16_t kRingSize = 32;
  static constexpr std::uint64_t kSent = 0x10'0000, kReceived = 0x20'0000;
  static constexpr std::uint32_t kBufferBytes = 4096;

  VsockRig() { start(); }

  Vsock& vsock() { return static_cast<Vsock&>(rig.transport.device()); }

  void start() {
    receive = Ring(memory, Gpa(0x8'0000), kRingSize);
    transmit = Ring(memory, Gpa(0xb'0000), kRingSize);
    event = Ring(memory, Gpa(0xe'0000), 16);
    free_ = 0;
    EXPECT_TRUE(driver.negotiate(Ring::kFeatures | Vsock::kStreamFeature));
    EXPECT_TRUE(driver.set_up_queue(Vsock::kReceive, receive));
    EXPECT_TRUE(driver.set_up_queue(Vsock::kTransmit, transmit));
    EXPECT_TRUE(driver.set_up_queue(Vsock::kEvent, event));
    driver.driver_ok();
    rig.serve();
  }

  void offer(int count, std::uint32_t size = kBufferBytes) {
    for (int i = 0; i < count; ++i) {
      const std::uint64_t at = kReceived + next_buffer_ * 0x1'0000;
      next_buffer_ = (next_buffer_ + 1) % 32;
      // The header apart, as older drivers have it.
      const auto id =
          size <= sizeof(VsockHeader)
              ? receive.add(std::vector<RingBuffer>{{at, size, true}})
              : receive.add(std::vector<RingBuffer>{{at, sizeof(VsockHeader), true},
                                                    {at + sizeof(VsockHeader), size, true}});
      places_[id.value()] = at;
      ++free_;
    }
    driver.notify(Vsock::kReceive);
    rig.serve();
  }
  std::optional<Packet> received() {
    const auto used = receive.take_used();
    if (!used) return std::nullopt;
    --free_;
    Packet packet;
    if (used->written < sizeof(VsockHeader)) return packet;
    std::string bytes(used->written, '\0');
    EXPECT_TRUE(memory.read(Gpa(places_[used->id]), std::as_writable_bytes(std::span(bytes))));
    std::memcpy(&packet.header, bytes.data(), sizeof packet.header);
    packet.data = bytes.substr(sizeof packet.header);
    EXPECT_EQ(packet.header.length, packet.data.size());
    EXPECT_EQ(packet.header.target_cid, kCid);
    return packet;
  }
  // Whatever the guest gets, with room for it.
  std::vector<Packet> all() {
    std::vector<Packet> packets;
    for (;;) {
      if (auto packet = received()) {
        packets.push_back(*std::move(packet));
      } else if (free_ != 0) {
        return packets;
      } else {
        offer(1);
      }
    }
  }
  std::vector<VsockOp> ops() {
    std::vector<VsockOp> ops;
    for (const Packet& packet : all()) ops.push_back(packet.op());
    return ops;
  }

  VsockHeader header(VsockOp op, std::uint32_t length = 0) {
    VsockHeader h;
    h.source_cid = kCid;
    h.target_cid = virtio::kHostCid;
    h.source_port = kGuestPort;
    h.target_port = kHostPort;
    h.length = length;
    h.type = VsockHeader::kStream;
    h.op = static_cast<std::uint16_t>(op);
    h.buffer_size = kGuestBuffer;
    h.forwarded = guest_forwarded;
    return h;
  }
  void send(const VsockHeader& h, const std::string& data = {}) {
    EXPECT_TRUE(memory.write(Gpa(kSent), std::as_bytes(std::span(&h, 1))));
    std::vector<RingBuffer> buffers{{kSent, sizeof h, false}};
    if (!data.empty()) {
      EXPECT_TRUE(memory.write(Gpa(kSent + 0x100), std::as_bytes(std::span(data))));
      buffers.push_back({kSent + 0x100, static_cast<std::uint32_t>(data.size()), false});
    }
    send_raw(buffers);
  }
  void send_raw(const std::vector<RingBuffer>& buffers) {
    transmit.add(buffers);
    driver.notify(Vsock::kTransmit);
    rig.serve();
    EXPECT_TRUE(transmit.take_used());
  }
  void send(VsockOp op) { send(header(op)); }
  void send_data(const std::string& data) {
    send(header(VsockOp::kData, static_cast<std::uint32_t>(data.size())), data);
  }
  void shut_down(std::uint32_t flags) {
    VsockHeader h = header(VsockOp::kShutdown);
    h.flags = flags;
    send(h);
  }
  // The guest connects to the host's port, and hears of it.
  void connect() {
    send(VsockOp::kRequest);
    EXPECT_EQ(ops(), std::vector{VsockOp::kResponse});
  }
  void host_ready() {
    vsock().backend_ready();
    rig.serve();
  }
  void host_says(const std::string& text) {
    host->put(host->only_stream(), text);
    host_ready();
  }

  GuestMemory memory = make_ram();
  std::shared_ptr<RecordingVsockBackend> host = std::make_shared<RecordingVsockBackend>();
  MmioRig rig{memory, std::make_unique<Vsock>("vsock0", kCid, host)};
  MmioDriver driver{rig.transport};
  Ring receive{memory, Gpa(0x8'0000), kRingSize};
  Ring transmit{memory, Gpa(0xb'0000), kRingSize};
  Ring event{memory, Gpa(0xe'0000), 16};
  std::uint32_t guest_forwarded = 0;

 private:
  std::uint64_t next_buffer_ = 0;
  int free_ = 0;  // buffers that the device has
  std::map<std::uint16_t, std::uint64_t> places_;
};

template <typename Ring>
class VsockOn : public testing::Test, public VsockRig<Ring> {};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(VsockOn, Rings);

class VsockSplit : public testing::Test, public VsockRig<SplitDriver> {};

// --- Connections of the guest's

TYPED_TEST(VsockOn, Config_isTheAddress) {
  EXPECT_EQ(this->driver.get(MmioDriver::kDeviceId), 19U);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig), kCid);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig + 4), 0U);
}

TYPED_TEST(VsockOn, GuestsRequest_reachesTheHostsPort) {
  this->send(VsockOp::kRequest);
  ASSERT_EQ(this->host->streams.size(), 1U);
  EXPECT_EQ(this->host->only().port, kHostPort);
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].op(), VsockOp::kResponse);
  EXPECT_EQ(packets[0].header.source_cid, virtio::kHostCid);
  EXPECT_EQ(packets[0].header.source_port, kHostPort);
  EXPECT_EQ(packets[0].header.target_port, kGuestPort);
  EXPECT_EQ(packets[0].header.type, VsockHeader::kStream);
  EXPECT_EQ(packets[0].header.buffer_size, kBuffer);
}

TYPED_TEST(VsockOn, RequestForAPortWithoutAListener_isReset) {
  this->host->listening = {1};
  this->send(VsockOp::kRequest);
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
  EXPECT_EQ(this->vsock().connections(), 0U);
}

TYPED_TEST(VsockOn, Bytes_goBothWays) {
  this->connect();
  this->send_data("hello");
  EXPECT_EQ(this->host->only().sent, "hello");
  this->host_says("world");
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].data, "world");
  EXPECT_EQ(packets[0].header.forwarded, 5U) << "every packet tells of the credit";
}

TYPED_TEST(VsockOn, BytesForTheGuest_waitForBuffers) {
  this->connect();  // one buffer stays
  const std::string text(10'000, 'x');
  this->host_says(text);
  EXPECT_EQ(this->host->only().waiting.size(), text.size() - VsockRig<TypeParam>::kBufferBytes);
  std::string got = this->received()->data;
  for (const Packet& packet : this->all()) got += packet.data;
  EXPECT_EQ(got, text);
}

// --- Credit

TYPED_TEST(VsockOn, BytesForTheGuest_stayWithinItsCredit) {
  this->connect();
  const std::string text(kGuestBuffer + 100, 'x');
  this->host_says(text);
  std::size_t got = 0;
  std::vector<VsockOp> others;
  for (const Packet& packet : this->all()) {
    got += packet.data.size();
    if (packet.op() != VsockOp::kData) others.push_back(packet.op());
  }
  EXPECT_EQ(got, kGuestBuffer);
  EXPECT_EQ(others, std::vector{VsockOp::kCreditRequest}) << "once";
  this->guest_forwarded = 60;
  this->send(VsockOp::kCreditUpdate);
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[0].data.size(), 60U);
  EXPECT_EQ(packets[1].op(), VsockOp::kCreditRequest);
}

TYPED_TEST(VsockOn, SlowProgram_stopsTheGuestByItsCredit) {
  this->connect();
  this->host->only().room = 0;
  const std::string piece(kBuffer / 4, 'a');
  for (int i = 0; i < 4; ++i) this->send_data(piece);
  EXPECT_EQ(this->host->only().sent, "");
  EXPECT_TRUE(this->all().empty()) << "no news";
  this->host->allow(this->host->only_stream(), piece.size());
  this->host_ready();
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].op(), VsockOp::kCreditUpdate);
  EXPECT_EQ(packets[0].header.forwarded, piece.size());
  EXPECT_EQ(this->host->only().sent, piece);
  this->send_data(piece);  // which is allowed now
  EXPECT_EQ(this->vsock().connections(), 1U);
}

TYPED_TEST(VsockOn, MoreThanTheCredit_losesTheConnection) {
  this->connect();
  this->host->only().room = 0;
  this->send_data(std::string(kBuffer, 'a'));
  EXPECT_EQ(this->vsock().connections(), 1U);
  this->send_data("b");
  EXPECT_EQ(this->vsock().connections(), 0U);
  EXPECT_EQ(this->host->closed, 1);
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
}

TYPED_TEST(VsockOn, FastProgram_isToldOfNowAndThen) {
  this->connect();
  int updates = 0;
  const std::string piece(kBuffer / 8, 'a');
  for (int i = 0; i < 64; ++i) {
    this->send_data(piece);
    updates += static_cast<int>(this->all().size());
  }
  EXPECT_EQ(this->host->only().sent.size(), 64 * piece.size());
  EXPECT_GT(updates, 8) << "the guest never ran out";
  EXPECT_LT(updates, 33) << "nor was each packet answered";
}

TYPED_TEST(VsockOn, CreditRequest_isAnswered) {
  this->connect();
  this->send(VsockOp::kCreditRequest);
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kCreditUpdate});
}

TEST_F(VsockSplit, ContradictoryCredit_isNone) {
  connect();
  guest_forwarded = 0x8000'0000;  // of bytes that it never got
  send(VsockOp::kCreditUpdate);
  host_says("x");
  EXPECT_EQ(ops(), std::vector{VsockOp::kCreditRequest});
}

// --- Ends

TYPED_TEST(VsockOn, GuestsHalfClose_isPassedOnBehindTheBytes) {
  this->connect();
  this->host->only().room = 2;
  this->send_data("last");
  this->shut_down(VsockHeader::kNoMoreSending);
  EXPECT_FALSE(this->host->only().end_sending) << "two bytes are still here";
  this->host->allow(this->host->only_stream(), 100);
  this->host_ready();
  EXPECT_EQ(this->host->only().sent, "last");
  EXPECT_TRUE(this->host->only().end_sending);
  this->host_says("answer");
  EXPECT_EQ(this->all().at(0).data, "answer") << "the other direction goes on";
}

TYPED_TEST(VsockOn, GuestsEnd_isAnsweredWithResetWhenAllIsSent) {
  this->connect();
  this->host->only().room = 0;
  this->send_data("last");
  this->shut_down(kBothEnds);
  EXPECT_TRUE(this->host->only().end_receiving);
  EXPECT_TRUE(this->all().empty());
  this->host->allow(this->host->only_stream(), 100);
  const auto stream = this->host->only_stream();
  this->host_ready();
  EXPECT_FALSE(this->host->streams.contains(stream));
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
}

TYPED_TEST(VsockOn, GuestThatWaitsNoLonger_losesNothing) {
  this->connect();
  this->host->only().room = 0;
  this->send_data("last");
  this->shut_down(kBothEnds);
  this->send(VsockOp::kReset);
  EXPECT_EQ(this->vsock().connections(), 1U);
  this->send(VsockOp::kRequest);  // the same ports once more: another connection
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kResponse});
  EXPECT_EQ(this->host->streams.size(), 2U);
  this->host->allow(this->host->only_stream(), 100);
  this->host_ready();
  EXPECT_EQ(this->host->closed, 1);
  EXPECT_EQ(this->vsock().connections(), 1U);
  EXPECT_TRUE(this->all().empty());
}

TYPED_TEST(VsockOn, GuestsReset_endsTheStream) {
  this->connect();
  this->send(VsockOp::kReset);
  EXPECT_EQ(this->host->closed, 1);
  EXPECT_TRUE(this->all().empty()) << "no answer to an RST";
}

TYPED_TEST(VsockOn, HostsHalfClose_comesBehindTheBytes) {
  this->connect();
  this->host->put(this->host->only_stream(), "last");
  this->host->end(this->host->only_stream(), false);
  this->host_ready();
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[0].data, "last");
  EXPECT_EQ(packets[1].op(), VsockOp::kShutdown);
  EXPECT_EQ(packets[1].header.flags, VsockHeader::kNoMoreSending);
  this->send_data("still heard");
  EXPECT_EQ(this->host->only().sent, "still heard");
  this->host->end(this->host->only_stream(), true);
  this->host_ready();
  const auto end = this->all();
  ASSERT_EQ(end.size(), 1U);
  EXPECT_EQ(end[0].header.flags, kBothEnds);
}

TYPED_TEST(VsockOn, HostsEnd_waitsForTheGuestsReset) {
  this->connect();
  this->host->put(this->host->only_stream(), "last");
  this->host->end(this->host->only_stream(), true);
  this->host_ready();
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[0].data, "last");
  EXPECT_EQ(packets[1].op(), VsockOp::kShutdown);
  EXPECT_EQ(packets[1].header.flags, kBothEnds);
  EXPECT_EQ(this->host->closed, 1);
  this->send_data("nobody hears this");
  EXPECT_EQ(this->vsock().connections(), 1U);
  this->send(VsockOp::kReset);
  EXPECT_EQ(this->vsock().connections(), 0U);
}

TYPED_TEST(VsockOn, BrokenStream_isReset) {
  this->connect();
  this->host->only().broken = true;
  this->host_says("");
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
  EXPECT_EQ(this->vsock().connections(), 0U);
}

// --- Connections of the host's

TYPED_TEST(VsockOn, HostsRequest_isAskedOfTheGuestAndAccepted) {
  const auto stream = this->host->ask(7);
  this->host_ready();
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].op(), VsockOp::kRequest);
  EXPECT_EQ(packets[0].header.target_port, 7U);
  const std::uint32_t port = packets[0].header.source_port;
  EXPECT_GE(port, Vsock::kFirstHostPort);
  this->host->put(stream, "early");
  this->host_ready();
  EXPECT_TRUE(this->all().empty()) << "the guest has not answered";
  VsockHeader answer = this->header(VsockOp::kResponse);
  answer.source_port = 7;
  answer.target_port = port;
  this->send(answer);
  EXPECT_EQ(this->host->streams.at(stream).accepted, port);
  EXPECT_EQ(this->received()->data, "early");
}

TYPED_TEST(VsockOn, HostsRequest_thatTheGuestResetsIsClosed) {
  this->host->ask(7);
  this->host_ready();
  VsockHeader answer = this->header(VsockOp::kReset);
  answer.source_port = 7;
  answer.target_port = this->all().at(0).header.source_port;
  this->send(answer);
  EXPECT_EQ(this->host->closed, 1);
  EXPECT_EQ(this->vsock().counters().refused, 1U);
}

TYPED_TEST(VsockOn, ProgramThatDoesNotWait_isTakenBack) {
  const auto stream = this->host->ask(7);
  this->host_ready();
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kRequest});
  this->host->end(stream, true);
  this->host_ready();
  EXPECT_EQ(this->received()->op(), VsockOp::kReset);
  EXPECT_EQ(this->vsock().connections(), 0U);
}

TEST_F(VsockSplit, HostsRequests_haveDifferentPorts) {
  for (int i = 0; i < 3; ++i) host->ask(7);
  host_ready();
  std::set<std::uint32_t> ports;
  for (const Packet& packet : all()) ports.insert(packet.header.source_port);
  EXPECT_EQ(ports.size(), 3U);
}

TEST_F(VsockSplit, HostsRequest_withoutADriverIsClosedAtOnce) {
  driver.put(MmioDriver::kStatus, 0);
  host->ask(7);
  vsock().backend_ready();
  EXPECT_EQ(host->closed, 1);
}

// --- Hostile drivers

TYPED_TEST(VsockOn, PacketOfNoConnection_isReset) {
  for (const VsockOp op :
       {VsockOp::kResponse, VsockOp::kShutdown, VsockOp::kData, VsockOp::kCreditUpdate,
        VsockOp::kCreditRequest, VsockOp{0}, VsockOp{99}}) {
    this->send(op);
    const auto packets = this->all();
    ASSERT_EQ(packets.size(), 1U);
    EXPECT_EQ(packets[0].op(), VsockOp::kReset);
    EXPECT_EQ(packets[0].header.source_port, kHostPort);
    EXPECT_EQ(packets[0].header.target_port, kGuestPort);
  }
  this->send(VsockOp::kReset);
  EXPECT_TRUE(this->all().empty());
}

TYPED_TEST(VsockOn, SenselessPacketOfAConnection_resetsIt) {
  for (const VsockOp op : {VsockOp::kResponse, VsockOp::kRequest, VsockOp{0}, VsockOp{8}}) {
    this->connect();
    this->send(op);
    EXPECT_EQ(this->vsock().connections(), 0U);
    EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
  }
  EXPECT_TRUE(this->host->streams.empty());
}

TYPED_TEST(VsockOn, LengthThatIsALie_resetsTheConnection) {
  for (const std::uint32_t length : {6U, kBuffer, 0xffff'ffffU}) {
    this->connect();
    this->send(this->header(VsockOp::kData, length), "hello");
    EXPECT_EQ(this->vsock().connections(), 0U) << length;
    EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
  }
}

TYPED_TEST(VsockOn, DataAfterTheEnd_resetsTheConnection) {
  this->connect();
  this->shut_down(VsockHeader::kNoMoreSending);
  this->send_data("more");
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kReset});
}

TYPED_TEST(VsockOn, OtherAddresses_areRefused) {
  VsockHeader other = this->header(VsockOp::kRequest);
  other.target_cid = 5;
  this->send(other);
  auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].op(), VsockOp::kReset);
  EXPECT_EQ(packets[0].header.source_cid, 5U);
  other = this->header(VsockOp::kRequest);
  other.source_cid = 43;  // an answer would be somebody else's
  this->send(other);
  EXPECT_TRUE(this->all().empty());
  EXPECT_EQ(this->vsock().counters().malformed, 1U);
  EXPECT_TRUE(this->host->streams.empty());
}

TYPED_TEST(VsockOn, OtherType_isRefusedAsThatType) {
  VsockHeader other = this->header(VsockOp::kRequest);
  other.type = 2;
  this->send(other);
  const auto packets = this->all();
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].op(), VsockOp::kReset);
  EXPECT_EQ(packets[0].header.type, 2U);
}

TYPED_TEST(VsockOn, HalfAHeader_isGivenBack) {
  this->send_raw({{VsockRig<TypeParam>::kSent, sizeof(VsockHeader) - 1, false}});
  this->send_raw({{VsockRig<TypeParam>::kSent, 64, true}});
  EXPECT_EQ(this->vsock().counters().malformed, 2U);
}

TYPED_TEST(VsockOn, SmallBuffers_areGivenBackEmpty) {
  this->send(VsockOp::kRequest);
  this->offer(1, sizeof(VsockHeader));
  const auto packet = this->received();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, 0U) << "nothing was written";
  EXPECT_EQ(this->ops(), std::vector{VsockOp::kResponse});
}

TYPED_TEST(VsockOn, Connections_areBounded) {
  VsockHeader request = this->header(VsockOp::kRequest);
  for (std::uint32_t i = 0; i < Vsock::kMostConnections + 10; ++i) {
    request.source_port = i;
    this->send(request);
  }
  EXPECT_EQ(this->vsock().connections(), Vsock::kMostConnections);
  int responses = 0, resets = 0;
  for (const VsockOp op : this->ops()) {
    responses += op == VsockOp::kResponse ? 1 : 0;
    resets += op == VsockOp::kReset ? 1 : 0;
  }
  EXPECT_EQ(responses, static_cast<int>(Vsock::kMostConnections));
  EXPECT_EQ(resets, 10);
}

TYPED_TEST(VsockOn, ProgramsThatLeft_keepNobodyOut) {
  VsockHeader request = this->header(VsockOp::kRequest);
  for (std::uint32_t i = 0; i < Vsock::kMostConnections; ++i) {
    request.source_port = i;
    this->send(request);
  }
  this->host->end(this->host->only_stream(), true);
  this->host_ready();
  (void)this->all();
  request.source_port = 0xffff;
  this->send(request);
  EXPECT_EQ(this->vsock().connections(), Vsock::kMostConnections);
  EXPECT_TRUE(std::ranges::count(this->ops(), VsockOp::kResponse));
}

TYPED_TEST(VsockOn, Answers_areBoundedWithoutBuffers) {
  for (std::uint32_t i = 0; i < Vsock::kMostResets + 5; ++i) this->send(VsockOp::kData);
  EXPECT_EQ(this->vsock().counters().resets_lost, 5U);
  EXPECT_EQ(this->ops().size(), Vsock::kMostResets);
}

TYPED_TEST(VsockOn, BrokenRing_keepsTheHostQuiet) {
  this->connect();
  this->receive.add(std::vector<RingBuffer>{{kHighRam - 4, 8, true}});
  (void)this->received();
  this->host_says(std::string(10'000, 'x'));
  this->host_says("more");
  EXPECT_EQ(this->driver.status() & virtio::kNeedsReset, virtio::kNeedsReset);
  this->start();
  EXPECT_EQ(this->host->closed, 1);
  EXPECT_EQ(this->vsock().connections(), 0U);
}

// --- Reset, save, restore

TYPED_TEST(VsockOn, Reset_closesEverything) {
  this->connect();
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_TRUE(this->host->streams.empty());
  this->start();
  this->connect();
}

TYPED_TEST(VsockOn, Restored_tellsTheDriverOfTheEndOfAllConnections) {
  this->connect();
  const auto other_host = std::make_shared<RecordingVsockBackend>();
  MmioRig other(this->memory, std::make_unique<Vsock>("vsock0", kCid, other_host));
  ASSERT_TRUE(restore_from(other.transport, saved(this->rig.transport)));
  other.serve();
  EXPECT_FALSE(this->event.take_used()) << "it has no room for it yet";
  this->event.add(std::vector<RingBuffer>{{0x10'8000, 2, true}});
  this->event.add(std::vector<RingBuffer>{{0x10'9000, 4, true}});
  EXPECT_TRUE(this->memory.write(Gpa(0x10'9000), ~std::uint32_t{0}));
  MmioDriver(other.transport).notify(Vsock::kEvent);
  other.serve();
  EXPECT_EQ(this->event.take_used()->written, 0U) << "too small";
  EXPECT_EQ(this->event.take_used()->written, 4U);
  EXPECT_EQ(this->memory.template read<std::uint32_t>(Gpa(0x10'9000)).value(),
            Vsock::kTransportReset);
  EXPECT_TRUE(other_host->streams.empty());
  EXPECT_EQ(static_cast<Vsock&>(other.transport.device()).connections(), 0U);
}

TEST_F(VsockSplit, Event_isNotSentWithoutARestore) {
  event.add(std::vector<RingBuffer>{{0x10'8000, 4, true}});
  driver.notify(Vsock::kEvent);
  rig.serve();
  EXPECT_FALSE(event.take_used());
}

struct VsockConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 16, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_ram();
  std::shared_ptr<RecordingVsockBackend> host = std::make_shared<RecordingVsockBackend>();
  MmioRig rig{memory, std::make_unique<Vsock>("vsock0", kCid, host)};
  virtio::MmioTransport& device = rig.transport;

  void mutate() {
    MmioDriver driver(device);
    SplitDriver ring(memory, Gpa(0x8'0000), 16);
    driver.negotiate(SplitDriver::kFeatures | Vsock::kStreamFeature);
    driver.set_up_queue(Vsock::kReceive, ring);
    ring.add(std::vector<RingBuffer>{{0x10'0000, 64, true}});
    driver.driver_ok();
    rig.serve();
    host->ask(7);
    static_cast<Vsock&>(device.device()).backend_ready();
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioVsock, DeviceConformance, VsockConformanceRig);

}  // namespace
}  // namespace vmm::test

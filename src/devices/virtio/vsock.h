// Virtio socket device: VIRTIO 1.2, section 5.10. Byte streams between ports of the guest's and
// programs of the host's.
//
// Emulated: stream sockets with credit both ways, half-closed connections, the event that tells of
// a restore (connections do not survive it). Not emulated: seqpacket, addresses other than the
// host's, guest-to-guest connections.
//
// Threats: a packet is copied, judged, and answered with RST when it is not part of a connection
// that both sides know. There are at most kMostConnections, each with at most
// VsockConnection::kBufferSize bytes that wait for a host program; who sends more than it has room
// for loses the connection. What waits for the guest are a few flags for each connection and
// kMostResets answers: bytes stay in the host's sockets until the guest has buffers and credit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bounded_queue.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"
#include "devices/virtio/vsock_connection.h"
#include "devices/virtio/vsock_packet.h"
#include "devices/vsock_backend.h"

namespace vmm::virtio {

class Vsock final : public Device {
 public:
  static constexpr std::uint16_t kReceive = 0, kTransmit = 1, kEvent = 2;  // section 5.10.2
  static constexpr std::uint64_t kStreamFeature = 1ULL << 0;               // section 5.10.3
  static constexpr std::uint32_t kTransportReset = 0;                      // section 5.10.6.7
  static constexpr std::size_t kMostConnections = 256;
  static constexpr std::size_t kMostResets = 128;
  // Ports of the host's for connections that its programs ask for begin here.
  static constexpr std::uint32_t kFirstHostPort = 1U << 30;
  static constexpr std::uint32_t kLastHostPort = 0xffff'fffe;  // the next one means "any"

  struct State {
    static constexpr StateId kId{"virtio_vsock", 1};
    // The driver is to hear that its connections are gone.
    bool transport_reset = false;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("transport_reset", &State::transport_reset); }
  };
  // Since creation.
  struct Counters {
    std::uint64_t opened = 0;     // connections, by either side
    std::uint64_t refused = 0;    // requests of either side
    std::uint64_t malformed = 0;  // packets that no driver sends
    std::uint64_t resets_lost = 0;
  };

  // `cid`: kFirstGuestCid to kLastGuestCid. The backend may serve several devices one after the
  // other.
  Vsock(std::string id, std::uint64_t cid, std::shared_ptr<VsockBackend> backend);
  ~Vsock() override;

  // The backend's ready_fd() is readable: on the event loop's thread, with the lock held.
  void backend_ready();

  const Counters& counters() const noexcept { return counters_; }
  std::size_t connections() const noexcept { return connections_.size() + leaving_.size(); }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kVsock; }
  std::uint64_t features() const noexcept override { return kStreamFeature; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  std::uint32_t config_size() const noexcept override { return 8; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  using Connection = VsockConnection;
  using Ports = VsockPorts;
  using Stream = VsockBackend::Stream;
  static constexpr std::array<std::uint16_t, 3> kQueues{128, 128, 16};
  static constexpr int kBatch = 64;  // packets or events before others have their turn
  static constexpr std::uint32_t kMostBytes = KiB(64);  // of one packet to the guest

  bool transmit();
  bool tell_of_reset();
  void forget_all();

  // To the guest.
  bool receive();
  void deliver();  // receive() now, and the rest later
  // Whether the chain was used.
  bool next_packet();
  bool next_packet_of(Connection& connection);
  enum class Data : std::uint8_t { kSent, kNone, kDropped };  // the last: the connection, too
  Data next_data(Connection& connection);
  void put_packet(Connection& connection, VsockOp op, std::uint32_t length = 0);
  void put(const VsockHeader& header);

  // From the guest (vsock_guest.cc).
  void handle(const Chain& chain);
  void handle(const VsockHeader& header, ChainReader& data);
  void open_for_guest(const VsockHeader& header, const Ports& ports);
  void handle_known(const VsockHeader& header, Connection& connection, ChainReader& data);
  void take_response(Connection& connection);
  void take_data(Connection& connection, ChainReader& data, std::uint32_t length);
  bool send_at_once(Connection& connection, ChainReader& data, std::uint32_t& length);
  void take_shutdown(Connection& connection, std::uint32_t flags);
  void take_reset(Connection& connection);
  void refuse(const VsockHeader& header);

  // From the host.
  void handle(const VsockBackend::Event& event);
  void open_for_host(Stream stream, std::uint32_t guest_port);
  Ports free_host_port(std::uint32_t guest_port);
  // Gives the host's program what waits for it. False when that was the end of the connection.
  bool flush(Connection& connection);
  // Nor when that was.
  bool host_left(Connection& connection);
  void host_is_deaf(Connection& connection);

  Connection* find(const Ports& ports);
  // False when there is no room for one more.
  bool make_room();
  Connection& add(const Ports& ports, Stream stream);
  void close_stream(Connection& connection);
  // Ends it; with an RST for the guest unless that does not know it any more.
  void drop(Connection& connection, bool tell = true);
  struct OwedReset {
    Ports ports;
    std::uint64_t host_cid = kHostCid;
    std::uint16_t type = VsockHeader::kStream;
  };
  void owe(const OwedReset& reset);
  void owe(Connection& connection, Connection::Due due);
  void schedule(Connection& connection);

  State s_;
  std::string id_;
  std::uint64_t cid_;
  std::shared_ptr<VsockBackend> backend_;
  Counters counters_;

  // None of these is saved: connections end with the machine that had them.
  std::map<Ports, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> leaving_;  // in phase kGuestGone
  std::map<Stream, Connection*> by_stream_;
  std::deque<Connection*> ready_;  // those with something for the guest, each once
  BoundedQueue<OwedReset, kMostResets> resets_;
  std::uint32_t next_host_port_ = kFirstHostPort;
  Chain chain_;  // its memory is used again for each request
};

}  // namespace vmm::virtio

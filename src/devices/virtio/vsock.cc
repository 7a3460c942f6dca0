#include "devices/virtio/vsock.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {

Vsock::Vsock(std::string id, std::uint64_t cid, std::shared_ptr<VsockBackend> backend)
    : id_(std::move(id)), cid_(cid), backend_(std::move(backend)) {}

Vsock::~Vsock() { forget_all(); }

void Vsock::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  const Le64 cid = cid_;  // section 5.10.4
  const auto bytes = std::as_bytes(std::span(&cid, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

void Vsock::activate(std::uint64_t) { s_ = State{}; }

bool Vsock::reset() {
  forget_all();
  s_ = State{};
  return true;
}

void Vsock::forget_all() {
  for (const auto& [stream, connection] : by_stream_) backend_->close(stream);
  by_stream_.clear();
  ready_.clear();
  resets_.clear();
  connections_.clear();
  leaving_.clear();
}

void Vsock::save(StateWriter& writer) const {
  // Whoever continues from here has none of the connections.
  writer.put(State{.transport_reset = s_.transport_reset || host().active()});
}

Result<void> Vsock::restore(const StateReader& reader, bool, std::uint64_t) {
  s_ = VMM_TRY(reader.get<State>());
  forget_all();
  return {};
}

bool Vsock::process(std::uint16_t queue) {
  switch (queue) {
    case kReceive:
      return receive();
    case kTransmit:
      return transmit();
    default:
      return tell_of_reset();
  }
}

bool Vsock::tell_of_reset() {
  Queue& queue = host().queue(kEvent);
  for (std::uint32_t left = queue.size(); s_.transport_reset; --left) {
    if (left == 0) return true;
    if (!queue.pop(chain_)) {
      if (!queue.enable_notifications()) break;
      continue;
    }
    ChainWriter writer(host().memory(), chain_);
    if (writer.write(Le32(kTransportReset))) s_.transport_reset = false;
    queue.push_used(chain_, writer.written());
  }
  host().used(kEvent);
  return false;
}

// --- Connections

VsockConnection* Vsock::find(const Ports& ports) {
  const auto found = connections_.find(ports);
  return found == connections_.end() ? nullptr : found->second.get();
}

bool Vsock::make_room() {
  if (connections() < kMostConnections) return true;
  // A guest that does not answer a host program's leaving keeps nobody out.
  const auto left = std::find_if(connections_.begin(), connections_.end(), [](const auto& entry) {
    return entry.second->phase == Connection::Phase::kHostGone && entry.second->due == 0;
  });
  if (left == connections_.end()) return false;
  drop(*left->second);
  return true;
}

VsockConnection& Vsock::add(const Ports& ports, Stream stream) {
  auto connection = std::make_unique<Connection>();
  connection->ports = ports;
  connection->stream = stream;
  by_stream_[stream] = connection.get();
  ++counters_.opened;
  return *(connections_[ports] = std::move(connection));
}

void Vsock::close_stream(Connection& connection) {
  if (!connection.stream) return;
  by_stream_.erase(*connection.stream);
  backend_->close(*connection.stream);
  connection.stream.reset();
}

void Vsock::drop(Connection& connection, bool tell) {
  const Ports ports = connection.ports;
  // What the guest has not heard of need not be taken back.
  if (tell && (connection.due & Connection::kRequestDue) == 0) owe({.ports = ports});
  close_stream(connection);
  if (connection.queued) std::erase(ready_, &connection);
  if (connection.phase == Connection::Phase::kGuestGone) {
    const Connection* const gone = &connection;
    std::erase_if(leaving_, [gone](const auto& entry) { return entry.get() == gone; });
  } else {
    connections_.erase(ports);
  }
}

void Vsock::owe(const OwedReset& reset) {
  if (!resets_.push(reset)) ++counters_.resets_lost;
}

void Vsock::owe(Connection& connection, Connection::Due due) {
  connection.due = static_cast<std::uint8_t>(connection.due | due);
  schedule(connection);
}

void Vsock::schedule(Connection& connection) {
  if (connection.queued || connection.phase == Connection::Phase::kGuestGone) return;
  if (!connection.has_work()) return;
  connection.queued = true;
  ready_.push_back(&connection);
}

// --- To the guest

void Vsock::deliver() {
  if (receive()) host().ring(kReceive);
}

bool Vsock::receive() {
  Queue& queue = host().queue(kReceive);
  int left = kBatch;
  while (left != 0 && (!resets_.empty() || !ready_.empty())) {
    --left;
    if (!queue.pop(chain_)) {
      if (!queue.enable_notifications()) break;
      continue;
    }
    queue.disable_notifications();
    if (chain_.writable_bytes() <= sizeof(VsockHeader)) {
      ++counters_.malformed;  // of no use to anybody
      queue.push_used(chain_, 0);
    } else if (!next_packet()) {
      queue.undo_pop(chain_);
    }
  }
  host().used(kReceive);
  return left == 0;
}

bool Vsock::next_packet() {
  if (const auto reset = resets_.pop()) {
    VsockHeader header;
    header.source_cid = reset->host_cid;
    header.source_port = reset->ports.host;
    header.target_cid = cid_;
    header.target_port = reset->ports.guest;
    header.type = reset->type;
    header.op = static_cast<std::uint16_t>(VsockOp::kReset);
    put(header);
    return true;
  }
  while (!ready_.empty()) {
    Connection& connection = *ready_.front();
    ready_.pop_front();
    connection.queued = false;
    if (next_packet_of(connection)) return true;
  }
  return false;
}

bool Vsock::next_packet_of(Connection& connection) {
  const auto take = [&connection](Connection::Due due) {
    const bool was = (connection.due & due) != 0;
    connection.due = static_cast<std::uint8_t>(connection.due & ~due);
    return was;
  };
  if (take(Connection::kRequestDue)) {
    put_packet(connection, VsockOp::kRequest);
  } else if (take(Connection::kResponseDue)) {
    put_packet(connection, VsockOp::kResponse);
  } else if (take(Connection::kCreditUpdateDue)) {
    put_packet(connection, VsockOp::kCreditUpdate);
  } else {
    const Data data = next_data(connection);
    if (data == Data::kDropped) return false;
    if (data == Data::kNone) {
      if (!take(Connection::kShutdownDue)) return false;
      put_packet(connection, VsockOp::kShutdown);
    }
  }
  schedule(connection);  // behind the others
  return true;
}

Vsock::Data Vsock::next_data(Connection& connection) {
  if (!connection.wants_bytes()) return Data::kNone;
  const std::uint32_t credit = connection.credit();
  if (credit == 0) {
    if (std::exchange(connection.credit_asked, true)) return Data::kNone;
    put_packet(connection, VsockOp::kCreditRequest);
    return Data::kSent;
  }
  ChainWriter writer(host().memory(), chain_);
  writer.skip(sizeof(VsockHeader));
  const HostView room(writer, std::min(credit, kMostBytes));
  using Then = VsockBackend::Transfer::Then;
  const auto got = backend_->receive(*connection.stream, room.pieces());
  if (got.bytes != 0) {
    connection.sent += static_cast<std::uint32_t>(got.bytes);
    put_packet(connection, VsockOp::kData, static_cast<std::uint32_t>(got.bytes));
    return Data::kSent;
  }
  connection.readable = false;
  if (got.then == Then::kFailed) {
    drop(connection);
    return Data::kDropped;
  }
  if (got.then == Then::kEnded && got.hung_up) {
    return host_left(connection) ? Data::kNone : Data::kDropped;
  }
  if (got.then == Then::kEnded) {
    connection.host_ended |= VsockHeader::kNoMoreSending;
    owe(connection, Connection::kShutdownDue);
  }
  return Data::kNone;
}

void Vsock::put_packet(Connection& connection, VsockOp op, std::uint32_t length) {
  connection.told = connection.forwarded();
  connection.due = static_cast<std::uint8_t>(connection.due & ~Connection::kCreditUpdateDue);
  VsockHeader header;
  header.source_cid = kHostCid;
  header.source_port = connection.ports.host;
  header.target_cid = cid_;
  header.target_port = connection.ports.guest;
  header.length = length;
  header.type = VsockHeader::kStream;
  header.op = static_cast<std::uint16_t>(op);
  header.flags = op == VsockOp::kShutdown ? connection.host_ended : 0;
  header.buffer_size = Connection::kBufferSize;
  header.forwarded = connection.told;
  put(header);
}

void Vsock::put(const VsockHeader& header) {
  ChainWriter writer(host().memory(), chain_);
  (void)writer.write(header);
  host().queue(kReceive).push_used(chain_, sizeof header + header.length);
}

// --- From the host

void Vsock::backend_ready() {
  for (int left = kBatch; left != 0; --left) {
    const auto event = backend_->next_event();
    if (!event) break;
    handle(*event);
  }
  if (host().active()) deliver();
}

void Vsock::handle(const VsockBackend::Event& event) {
  if (event.wanted_port) return open_for_host(event.stream, *event.wanted_port);
  const auto found = by_stream_.find(event.stream);
  if (found == by_stream_.end()) return;
  Connection& connection = *found->second;
  connection.readable = connection.readable || event.readable || event.hung_up;
  connection.writable = connection.writable || event.writable;
  if (!flush(connection)) return;
  if (!event.hung_up || connection.wants_bytes() || host_left(connection)) schedule(connection);
}

void Vsock::open_for_host(Stream stream, std::uint32_t guest_port) {
  if (!host().active() || !make_room()) {
    ++counters_.refused;
    return backend_->close(stream);
  }
  Connection& connection = add(free_host_port(guest_port), stream);
  connection.phase = Connection::Phase::kAsked;
  owe(connection, Connection::kRequestDue);
}

VsockPorts Vsock::free_host_port(std::uint32_t guest_port) {
  for (;;) {  // there are far more ports than connections
    const Ports ports{.guest = guest_port, .host = next_host_port_};
    next_host_port_ = next_host_port_ == kLastHostPort ? kFirstHostPort : next_host_port_ + 1;
    if (find(ports) == nullptr) return ports;
  }
}

bool Vsock::flush(Connection& connection) {
  using Then = VsockBackend::Transfer::Then;
  while (!connection.waiting.empty() && connection.writable && connection.stream) {
    const auto front = connection.waiting.front();
    const ::iovec piece{const_cast<std::byte*>(front.data()), front.size()};
    const auto sent = backend_->send(*connection.stream, std::span(&piece, 1));
    connection.waiting.pop(sent.bytes);
    if (sent.then == Then::kBlocked) connection.writable = false;
    if (sent.then == Then::kEnded) host_is_deaf(connection);
    if (sent.then == Then::kFailed) {
      drop(connection, connection.phase != Connection::Phase::kGuestGone);
      return false;
    }
  }
  if (connection.waiting.empty() && connection.guest_left()) {
    drop(connection, connection.phase != Connection::Phase::kGuestGone);
    return false;
  }
  if (connection.waiting.empty() && connection.guest_sends_no_more() && connection.stream) {
    backend_->end_sending(*connection.stream);
  }
  if (connection.should_tell()) owe(connection, Connection::kCreditUpdateDue);
  return true;
}

// What is still under way to it is lost; what it sent has all been given to the guest.
bool Vsock::host_left(Connection& connection) {
  if (connection.phase == Connection::Phase::kAsked || connection.guest_left()) {
    drop(connection, connection.phase != Connection::Phase::kGuestGone);
    return false;
  }
  close_stream(connection);
  connection.waiting.clear();
  connection.phase = Connection::Phase::kHostGone;
  connection.host_ended = VsockHeader::kNoMoreSending | VsockHeader::kNoMoreReceiving;
  owe(connection, Connection::kShutdownDue);
  return true;
}

void Vsock::host_is_deaf(Connection& connection) {
  connection.deaf = true;
  connection.waiting.clear();
  connection.host_ended |= VsockHeader::kNoMoreReceiving;
  owe(connection, Connection::kShutdownDue);
}

}  // namespace vmm::virtio

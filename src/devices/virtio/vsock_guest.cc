// What the guest sends: each packet is one request of the transmit queue.
#include "devices/virtio/vsock.h"

#include <algorithm>
#include <utility>

namespace vmm::virtio {

using Then = VsockBackend::Transfer::Then;

bool Vsock::transmit() {
  const bool more = drain(kTransmit, chain_, [this](const Chain& chain) {
    handle(chain);
    host().queue(kTransmit).push_used(chain, 0);
  });
  host().used(kTransmit);
  deliver();
  return more;
}

void Vsock::handle(const Chain& chain) {
  ChainReader reader(host().memory(), chain);
  VsockHeader header;
  // An answer would go to whoever the guest says it is.
  if (!reader.read(header) || header.source_cid != cid_) {
    ++counters_.malformed;
    return;
  }
  handle(header, reader);
}

void Vsock::handle(const VsockHeader& header, ChainReader& data) {
  const Ports ports{.guest = header.source_port, .host = header.target_port};
  if (header.target_cid != kHostCid || header.type != VsockHeader::kStream) {
    return refuse(header);
  }
  if (Connection* const connection = find(ports)) {
    handle_known(header, *connection, data);
  } else {
    open_for_guest(header, ports);
  }
}

void Vsock::refuse(const VsockHeader& header) {
  if (header.op == static_cast<std::uint16_t>(VsockOp::kReset))
    return;  // they would go on for ever
  ++counters_.refused;
  owe({.ports = {.guest = header.source_port, .host = header.target_port},
       .host_cid = header.target_cid,
       .type = header.type});
}

void Vsock::open_for_guest(const VsockHeader& header, const Ports& ports) {
  if (header.op != static_cast<std::uint16_t>(VsockOp::kRequest) || !make_room()) {
    return refuse(header);
  }
  const auto stream = backend_->connect(ports.host);
  if (!stream) return refuse(header);
  Connection& connection = add(ports, *stream);
  connection.take_credit(header);
  owe(connection, Connection::kResponseDue);
}

void Vsock::handle_known(const VsockHeader& header, Connection& connection, ChainReader& data) {
  connection.take_credit(header);
  switch (static_cast<VsockOp>(std::uint16_t{header.op})) {
    case VsockOp::kResponse:
      return take_response(connection);
    case VsockOp::kData:
      return take_data(connection, data, header.length);
    case VsockOp::kShutdown:
      return take_shutdown(connection, header.flags);
    case VsockOp::kReset:
      return take_reset(connection);
    case VsockOp::kCreditUpdate:
      return schedule(connection);
    case VsockOp::kCreditRequest:
      return owe(connection, Connection::kCreditUpdateDue);
    case VsockOp::kRequest:
      break;
  }
  // There is no such packet, or not for a connection that exists.
  ++counters_.malformed;
  drop(connection);
}

void Vsock::take_response(Connection& connection) {
  if (connection.phase != Connection::Phase::kAsked ||
      (connection.due & Connection::kRequestDue) != 0) {
    ++counters_.malformed;
    return drop(connection);
  }
  connection.phase = Connection::Phase::kOpen;
  connection.readable = true;
  backend_->accept(*connection.stream, connection.ports.host);
  schedule(connection);
}

void Vsock::take_data(Connection& connection, ChainReader& data, std::uint32_t length) {
  if (connection.phase == Connection::Phase::kAsked || connection.guest_sends_no_more() ||
      length > data.remaining() || length > connection.waiting.room()) {
    ++counters_.malformed;
    return drop(connection);
  }
  connection.received += length;
  if (!connection.deaf && connection.stream) {
    if (!send_at_once(connection, data, length)) return;
    std::array<std::byte, KiB(4)> piece;
    while (length != 0 && !connection.deaf) {
      const auto part = std::span(piece).first(std::min<std::size_t>(piece.size(), length));
      data.read(part);
      connection.waiting.push(part);
      length -= static_cast<std::uint32_t>(part.size());
    }
  }
  if (flush(connection)) schedule(connection);
}

// What the host's program takes now goes to it straight from guest memory. False when that was the
// end of the connection.
bool Vsock::send_at_once(Connection& connection, ChainReader& data, std::uint32_t& length) {
  if (length == 0 || !connection.writable || !connection.waiting.empty()) return true;
  SegmentCursor cursor = data;
  const HostView bytes(cursor, length);
  const auto sent = backend_->send(*connection.stream, bytes.pieces());
  data.skip(sent.bytes);
  length -= static_cast<std::uint32_t>(sent.bytes);
  if (sent.then == Then::kBlocked) connection.writable = false;
  if (sent.then == Then::kEnded) host_is_deaf(connection);
  if (sent.then != Then::kFailed) return true;
  drop(connection);
  return false;
}

void Vsock::take_shutdown(Connection& connection, std::uint32_t flags) {
  connection.guest_ended |= flags & (VsockHeader::kNoMoreReceiving | VsockHeader::kNoMoreSending);
  if (connection.phase == Connection::Phase::kAsked) return drop(connection);
  if (connection.guest_takes_no_more() && connection.stream) {
    backend_->end_receiving(*connection.stream);
  }
  if (flush(connection)) schedule(connection);
}

void Vsock::take_reset(Connection& connection) {
  const bool in_order = connection.guest_left() && connection.stream && !connection.waiting.empty();
  if (!in_order) {
    if (connection.phase == Connection::Phase::kAsked) ++counters_.refused;
    return drop(connection, false);
  }
  // It waited for us long enough; the host's program still gets what was sent.
  if (connection.queued) std::erase(ready_, &connection);
  connection.queued = false;
  connection.phase = Connection::Phase::kGuestGone;
  const auto found = connections_.find(connection.ports);
  leaving_.push_back(std::move(found->second));
  connections_.erase(found);
}

}  // namespace vmm::virtio

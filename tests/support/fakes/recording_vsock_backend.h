// A host of a test's: remembers what the guest sends on each stream, and has what the test puts
// there.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>

#include "devices/vsock_backend.h"

namespace vmm::test {

class RecordingVsockBackend final : public VsockBackend {
 public:
  struct StreamState {
    std::uint32_t port = 0;  // that the guest asked for
    std::optional<std::uint32_t> accepted;
    std::string sent;                    // by the guest
    std::string waiting;                 // for the guest
    std::size_t room = ~std::size_t{0};  // for what the guest sends
    bool ended = false;                  // the program sends nothing more
    bool hung_up = false;                // nor does it read
    bool broken = false;
    bool end_sending = false, end_receiving = false;  // by the guest
  };

  // What it saw, by stream; those that are closed are not there.
  std::map<Stream, StreamState> streams;
  int closed = 0;
  // Ports that somebody listens on; every one when empty.
  std::set<std::uint32_t> listening;
  std::deque<Event> events;
  std::size_t most_streams = 1000;

  // A program asks for a port of the guest's.
  Stream ask(std::uint32_t port) {
    const Stream stream = next_++;
    streams[stream] = {};
    events.push_back({.stream = stream, .wanted_port = port});
    return stream;
  }
  void put(Stream stream, const std::string& text) {
    streams[stream].waiting += text;
    events.push_back({.stream = stream, .readable = true});
  }
  void end(Stream stream, bool hung_up) {
    streams[stream].ended = true;
    streams[stream].hung_up = hung_up;
    events.push_back({.stream = stream, .readable = true, .hung_up = hung_up});
  }
  void allow(Stream stream, std::size_t more) {
    streams[stream].room = more;
    events.push_back({.stream = stream, .writable = true});
  }
  StreamState& only() { return streams.begin()->second; }
  Stream only_stream() { return streams.begin()->first; }

  std::optional<Stream> connect(std::uint32_t port) override {
    if (!listening.empty() && !listening.contains(port)) return std::nullopt;
    if (streams.size() >= most_streams) return std::nullopt;
    streams[next_].port = port;
    return next_++;
  }
  void accept(Stream stream, std::uint32_t host_port) override {
    streams.at(stream).accepted = host_port;
  }
  Transfer send(Stream stream, std::span<const ::iovec> pieces) override {
    StreamState& s = streams.at(stream);
    if (s.broken) return {.then = Transfer::Then::kFailed};
    if (s.hung_up) return {.then = Transfer::Then::kEnded};
    std::size_t bytes = 0;
    for (const ::iovec& piece : pieces) {
      const std::size_t n = std::min(piece.iov_len, s.room);
      s.sent.append(static_cast<const char*>(piece.iov_base), n);
      s.room -= n;
      bytes += n;
    }
    if (bytes == 0) return {.then = Transfer::Then::kBlocked};
    return {.bytes = bytes};
  }
  Transfer receive(Stream stream, std::span<const ::iovec> pieces) override {
    StreamState& s = streams.at(stream);
    if (s.broken) return {.then = Transfer::Then::kFailed};
    std::size_t bytes = 0;
    for (const ::iovec& piece : pieces) {
      const std::size_t n = std::min(piece.iov_len, s.waiting.size());
      std::memcpy(piece.iov_base, s.waiting.data(), n);
      s.waiting.erase(0, n);
      bytes += n;
    }
    if (bytes != 0) return {.bytes = bytes};
    if (s.ended) return {.then = Transfer::Then::kEnded, .hung_up = s.hung_up};
    return {.then = Transfer::Then::kBlocked};
  }
  void end_sending(Stream stream) override { streams.at(stream).end_sending = true; }
  void end_receiving(Stream stream) override { streams.at(stream).end_receiving = true; }
  void close(Stream stream) override {
    streams.erase(stream);
    ++closed;
  }
  std::optional<Event> next_event() override {
    if (events.empty()) return std::nullopt;
    const Event event = events.front();
    events.pop_front();
    return event;
  }
  int ready_fd() const noexcept override { return -1; }

 private:
  Stream next_ = 0;
};

}  // namespace vmm::test

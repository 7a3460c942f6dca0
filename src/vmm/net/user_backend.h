// User-mode networking: the guest sits behind an address translator inside this process, which
// needs no privileges. TCP, UDP and pings go out through sockets of ours; chosen ports lead in.
//
// Documents: libslirp 4.7 (RFC 2131 for the addresses that it gives out).
//
// The guest's network: 10.0.2.0/24, gateway and host 10.0.2.2, DNS 10.0.2.3, DHCP from 10.0.2.15
// on; fec0::/64 likewise.
//
// Threats: the guest drives libslirp with frames of its choice. The number of flows and of pieces
// of packets is bounded by FlowLimit, frames for the guest by kMostQueued; what libslirp keeps of
// one connection is up to it.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/net_backend.h"
#include "vmm/net/fd_gate.h"
#include "vmm/net/flow_limit.h"
#include "vmm/net/network.h"
#include "vmm/net/slirp_library.h"

namespace vmm {

class UserBackend final : public NetBackend {
 public:
  // Errors: kUnsupported without libslirp; whatever a port cannot be forwarded for.
  static Result<std::unique_ptr<UserBackend>> create(const UserNetwork& network);
  ~UserBackend() override;
  UserBackend(const UserBackend&) = delete;
  UserBackend& operator=(const UserBackend&) = delete;

  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  void end_batch() override { renew_interest(); }
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  bool has_frame() const noexcept override { return !frames_.empty(); }
  int ready_fd() const noexcept override { return gate_->fd(); }
  void want_frames(bool wanted) override;

  std::uint64_t dropped() const noexcept { return dropped_; }  // frames, both ways

 private:
  // Frames for the guest: a burst beyond this is lost, and TCP slows down.
  static constexpr std::size_t kMostQueued = 1024 * 1024;  // bytes
  static constexpr std::size_t kMostFlows = 512;

  struct Timer {
    SlirpTimerCb callback;
    void* argument;
    std::int64_t when_ms = -1;  // -1: not running
  };

  UserBackend() : limit_(most_flows()) {}
  static std::size_t most_flows();
  static const SlirpCb& callbacks();
  static UserBackend& self(void* opaque) { return *static_cast<UserBackend*>(opaque); }
  Result<void> open(const UserNetwork& network);
  Result<void> forward(const PortForward& forward);

  void pump();
  void run_timers();
  // Has the descriptors and the time waited for that libslirp wants to hear of next.
  void renew_interest();
  static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLPRI == EPOLLPRI);
  struct Interest {
    std::uint32_t wanted = 0;  // what libslirp waits for
    std::uint32_t known = 0;   // what epoll_ knows of; 0: the descriptor is not in it
  };
  void wait_for(int fd, Interest& interest);
  void forget(int fd);
  void set_alarm(std::uint32_t milliseconds);
  void queue_frame(std::span<const std::byte> frame);

  std::shared_ptr<const SlirpLibrary> library_;
  UniqueFd epoll_;  // libslirp's sockets and alarm_
  UniqueFd alarm_;  // timerfd
  std::optional<FdGate> gate_;
  FlowLimit limit_;
  std::vector<std::unique_ptr<Timer>> timers_;
  std::vector<::pollfd> wanted_;     // what libslirp asked for last, by its index
  std::map<int, Interest> waiting_;  // by descriptor
  std::size_t flows_ = 0;
  std::deque<std::vector<std::byte>> frames_;  // for the guest
  std::size_t queued_ = 0;                     // bytes of these
  std::uint64_t dropped_ = 0;
  std::vector<std::byte> outgoing_;  // a frame of the guest's, copied
  Slirp* slirp_ = nullptr;           // last: its callbacks use the rest
};

}  // namespace vmm

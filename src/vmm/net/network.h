// Which network of the host's a guest's interface is on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "devices/mac_address.h"
#include "devices/net_backend.h"

namespace vmm {

// An IPv4 address and a port, both in the host's byte order.
struct Ipv4Endpoint {
  std::uint32_t address = 0;
  std::uint16_t port = 0;
  bool operator==(const Ipv4Endpoint&) const = default;
};

// A port of the host's that leads into the guest.
struct PortForward {
  bool udp = false;
  Ipv4Endpoint host{.address = 0x7f00'0001};  // 0.0.0.0: reachable from outside
  Ipv4Endpoint guest{};                       // address 0: the first that DHCP gives out
  bool operator==(const PortForward&) const = default;
};

// Behind an address translator in this process; needs no privileges.
struct UserNetwork {
  std::vector<PortForward> forwards = {};
  bool restricted = false;  // the guest reaches nothing; what is forwarded to it works
};
// A tap device that exists.
struct TapNetwork {
  std::string name = {};
  std::uint16_t queues = 1;  // more than one: a multi-queue device
};
// An open descriptor of a tap device, borrowed.
struct FdNetwork {
  int fd = -1;
};

// Another process, which serves the interface over vhost-user: not for open_network(), but for
// open_vhost_net() (vmm/vhost/open_vhost.h).
struct VhostNetwork {
  std::string socket = {};
};

// Behind passt, a translator in a process of its own: one that listens on a socket, or one that is
// started for this network and ends with it.
struct PasstNetwork {
  std::optional<std::string> socket = {};
};

struct NetworkSpec {
  std::variant<UserNetwork, TapNetwork, FdNetwork, PasstNetwork, VhostNetwork> where =
      UserNetwork{};
  std::optional<MacAddress> mac = {};
  std::optional<std::string> capture_file = {};  // a pcap file, created or emptied
  std::vector<std::uint32_t> io_threads = {};    // whose threads serve it; none: not chosen
};

// The host's end, ready for a machine: its queues, one in most cases. It may outlive the machine
// and serve the next one. Errors: whatever the host refuses.
Result<std::vector<std::shared_ptr<NetBackend>>> open_network(const NetworkSpec& spec);

}  // namespace vmm

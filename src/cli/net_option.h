// The text of --net, and what it means.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/mac_address.h"
#include "vmm/config.h"
#include "vmm/net/network.h"

namespace vmm::cli {

// user[,hostfwd=PROTOCOL:[ADDRESS]:PORT-[ADDRESS]:PORT]...[,restricted] | tap=NAME[,queues=N] |
// fd=N | passt[=SOCKET] | vhost-user=SOCKET, each followed by [,mac=ADDRESS], all but the last by
// [,pcap=FILE][,iothread=N[:N]...]. Errors: kBadConfig, naming what would be right.
Result<NetworkSpec> parse_net(std::string_view text);

// An interface on the queues of a network.
VirtioNetConfig net_config(std::string name, const MacAddress& mac,
                           std::span<const std::shared_ptr<NetBackend>> queues);

// The address of interface `index` of a machine when nobody chose one: the same at each start, and
// another one for each machine, network and interface.
MacAddress default_mac(std::string_view machine, const NetworkSpec& network, std::size_t index);

}  // namespace vmm::cli

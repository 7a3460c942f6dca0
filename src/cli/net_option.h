// The text of --net, and what it means.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/mac_address.h"
#include "vmm/net/network.h"

namespace vmm::cli {

// user[,hostfwd=PROTOCOL:[ADDRESS]:PORT-[ADDRESS]:PORT]...[,restricted] | tap=NAME | fd=N,
// each followed by [,mac=ADDRESS][,pcap=FILE][,iothread=N]. Errors: kBadConfig, naming what would
// be right.
Result<NetworkSpec> parse_net(std::string_view text);

// The address of interface `index` of a machine when nobody chose one: the same at each start, and
// another one for each machine, network and interface.
MacAddress default_mac(std::string_view machine, const NetworkSpec& network, std::size_t index);

}  // namespace vmm::cli

// The text of --disk, and what it means.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/block/open_disk.h"

namespace vmm::cli {

struct DiskSpec {
  std::string name = {};  // the machine's, when it is open
  DiskImage image = {};
  std::string vhost_socket = {};  // of the process that serves the disk; empty: `image` is it
  bool reconnect = false;         // for vhost_socket
  std::string serial = {};
  std::uint16_t queues = 1;
  std::vector<std::uint32_t> io_threads = {};  // whose serve its queues in turn; none: not chosen
};

// path=FILE|nbd:URI[,ro][,serial=TEXT][,queues=N][,iothread=N[:N]...][,cow[=FILE]][,direct][,discard]
// [,LIMIT=N]..., with the limits of disk_rates.h, or vhost-user-blk=SOCKET[,queues=N][,reconnect].
// Errors: kBadConfig, naming what would be right.
Result<DiskSpec> parse_disk(std::string_view text);

}  // namespace vmm::cli

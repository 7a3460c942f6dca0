// Processes that answer the requests of a guest's devices, over vhost-user.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/result.h"

namespace vmm {

namespace virtio {
class RemotePeer;
}

// Each connects, waits for the back-end's first answers (some seconds at most), and gives a peer
// for a device of that kind. It serves one machine at a time, and may be given to the next one when
// that is gone. `log` hears when a back-end goes or comes back. Errors: kUnsupported for a back-end
// that cannot serve the kind; kTimeout; whatever the socket is refused for.

// A disk (qemu-storage-daemon, SPDK, ...) with so many queues.
Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_disk(const std::string& socket,
                                                            std::uint16_t queues, const Log& log);
// A network (passt, DPDK, ...).
Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_net(const std::string& socket,
                                                           const Log& log);
// A file server (virtiofsd) that runs already.
Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_share(const std::string& socket,
                                                             const Log& log);
// A virtiofsd for this directory, started here and ended with the peer. Errors besides:
// kUnsupported when there is none on this host; kBadConfig for what is no directory.
Result<std::shared_ptr<virtio::RemotePeer>> share_directory(const std::string& directory,
                                                            bool read_only, const Log& log);

}  // namespace vmm

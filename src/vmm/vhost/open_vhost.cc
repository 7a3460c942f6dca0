#include "vmm/vhost/open_vhost.h"

#include <utility>

#include "devices/virtio/remote_kinds.h"
#include "devices/virtio/spec.h"
#include "vmm/vhost/peer_link.h"
#include "vmm/vhost/vhost_peer.h"

namespace vmm {
namespace {

using vhost::VhostPeer;

Result<std::shared_ptr<virtio::RemotePeer>> open(std::unique_ptr<vhost::PeerLink> link,
                                                 std::uint16_t queues, std::uint32_t config_size,
                                                 const Log& log) {
  // A request's buffers are described as VIRTIO 1 has it.
  return std::shared_ptr<virtio::RemotePeer>(
      VMM_TRY(VhostPeer::open(std::move(link), {.config_size = config_size,
                                                .queues = queues,
                                                .required = virtio::kFeatureVersion1,
                                                .log = log})));
}

constexpr std::uint16_t kShareQueues = 2;

}  // namespace

Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_disk(const std::string& socket,
                                                            std::uint16_t queues, const Log& log) {
  return open(std::make_unique<vhost::SocketLink>(socket), queues, virtio::RemoteBlk::kConfigSize,
              log);
}

Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_net(const std::string& socket,
                                                           const Log& log) {
  // Some back-ends count pairs.
  return open(std::make_unique<vhost::SocketLink>(socket), 1, 0, log);
}

Result<std::shared_ptr<virtio::RemotePeer>> open_vhost_share(const std::string& socket,
                                                             const Log& log) {
  return open(std::make_unique<vhost::SocketLink>(socket), kShareQueues, 0, log);
}

Result<std::shared_ptr<virtio::RemotePeer>> share_directory(const std::string& directory,
                                                            bool read_only, const Log& log) {
  return open(VMM_TRY(vhost::FileServerLink::create(directory, read_only)), kShareQueues, 0, log);
}

}  // namespace vmm

// The kinds of devices that another process serves: how their configuration spaces look, and how a
// request of theirs is answered when that process has gone. Everything else is Remote's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/mac_address.h"
#include "devices/virtio/remote.h"

namespace vmm::virtio {

// A block device (VIRTIO 1.2, 5.2). Its configuration space is the peer's, but for the number of
// queues. Requests wait for a peer that comes back, or end with IOERR.
// Not offered, whatever the peer knows: secure erase, lifetime information, zones, the legacy
// commands.
class RemoteBlk final : public Remote {
 public:
  static constexpr std::uint16_t kQueueSize = 256;
  static constexpr std::uint16_t kMostQueues = 16;
  static constexpr std::uint32_t kConfigSize = 60;  // up to the limits of WRITE_ZEROES

  struct Setup {
    std::shared_ptr<RemotePeer> peer = {};
    std::uint16_t queues = 1;  // 1 to kMostQueues, and no more than the peer has
    bool reconnect = false;
  };
  RemoteBlk(std::string id, Setup setup);

  // Bytes, as the driver was told.
  std::uint64_t size() const noexcept;

  DeviceType type() const noexcept override { return DeviceType::kBlock; }
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;

 private:
  std::optional<std::uint64_t> fail_request(std::uint16_t queue, const Chain& chain) override;
  void peer_config_changed() override;
  void reset_kind() override;
  void load_config();

  const std::uint16_t queues_;
  std::array<std::byte, kConfigSize> config_{};
};

// A network interface (VIRTIO 1.2, 5.1) with one pair of queues and no control queue: address and
// link are ours to tell. Without its peer the link is down, and what is sent is lost.
class RemoteNet final : public Remote {
 public:
  static constexpr std::uint16_t kQueueSize = 256;

  RemoteNet(std::string id, std::shared_ptr<RemotePeer> peer, MacAddress mac);

  const MacAddress& mac() const noexcept { return mac_; }
  bool link() const noexcept { return link_ && connected_; }
  // Plugs the cable in or pulls it, as far as the driver is told.
  void set_link(bool up);

  DeviceType type() const noexcept override { return DeviceType::kNet; }
  std::uint32_t config_size() const noexcept override { return 8; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;

 private:
  std::optional<std::uint64_t> fail_request(std::uint16_t queue, const Chain& chain) override;
  void connection_changed(bool connected) override;

  const MacAddress mac_;
  bool link_ = true;
  bool connected_ = true;
};

// A file system (VIRTIO 1.2, 5.11): one queue for requests and the one for those in a hurry.
// Without its peer, which knows the files that are open, requests end with ENOTCONN.
// Not offered: the DAX window, notifications.
class RemoteFs final : public Remote {
 public:
  static constexpr std::uint16_t kQueueSize = 1024;
  static constexpr std::size_t kMostTag = 36;  // bytes

  RemoteFs(std::string id, std::shared_ptr<RemotePeer> peer, std::string tag);

  const std::string& tag() const noexcept { return tag_; }

  DeviceType type() const noexcept override { return DeviceType::kFs; }
  std::uint32_t config_size() const noexcept override { return kMostTag + 4; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  // Errors: kUnsupported for a device that was at work: the peer's open files are not in the state.
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  std::optional<std::uint64_t> fail_request(std::uint16_t queue, const Chain& chain) override;

  const std::string tag_;
};

}  // namespace vmm::virtio

#include "devices/virtio/remote_kinds.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/le.h"
#include "devices/virtio/chain.h"

namespace vmm::virtio {
namespace {

constexpr std::uint64_t bits(std::initializer_list<unsigned> numbers) {
  std::uint64_t mask = 0;
  for (const unsigned number : numbers) mask |= std::uint64_t{1} << number;
  return mask;
}

// 5.2.3: SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD,
// WRITE_ZEROES. MQ is ours to say.
constexpr std::uint64_t kBlkFeatures = bits({1, 2, 4, 5, 6, 9, 10, 11, 13, 14});
constexpr std::uint64_t kBlkConfigWce = bits({11});
constexpr std::uint64_t kBlkMultiQueue = bits({12});
constexpr std::uint32_t kBlkWriteback = 32;  // 5.2.4: places in the configuration space
constexpr std::uint32_t kBlkQueues = 34;
constexpr std::byte kBlkIoError{1};

// 5.1.3: CSUM, GUEST_CSUM, GUEST_TSO4, TSO6, ECN, UFO, HOST_TSO4, TSO6, ECN, UFO, MRG_RXBUF. MAC
// and STATUS are ours.
constexpr std::uint64_t kNetFeatures = bits({0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15});
constexpr std::uint64_t kNetOwnFeatures = bits({5, 16});
constexpr std::uint16_t kReceiveQueue = 0;

// A part of a configuration space that is known in whole.
void read_from(std::span<const std::byte> whole, std::uint32_t offset, std::span<std::byte> data) {
  std::copy_n(whole.begin() + offset, data.size(), data.begin());
}

std::vector<std::uint16_t> sizes(std::size_t queues, std::uint16_t size) {
  return std::vector<std::uint16_t>(queues, size);
}

}  // namespace

RemoteBlk::RemoteBlk(std::string id, Setup setup)
    : Remote(std::move(id), {.peer = setup.peer,
                             .queue_sizes = sizes(setup.queues, kQueueSize),
                             .features = (setup.peer->features() & kBlkFeatures) |
                                         (setup.queues > 1 ? kBlkMultiQueue : 0),
                             .reconnect = setup.reconnect}),
      queues_(setup.queues) {
  load_config();
}

void RemoteBlk::load_config() {
  const std::vector<std::byte> told = peer().config();
  std::copy_n(told.begin(), std::min(told.size(), config_.size()), config_.begin());
  store_le(std::span(config_).subspan(kBlkQueues, 2), queues_);
}

std::uint64_t RemoteBlk::size() const noexcept {
  constexpr std::uint64_t kSector = 512;
  return load_le(std::span(config_).first(8)) * kSector;
}

void RemoteBlk::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  read_from(config_, offset, data);
}

void RemoteBlk::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  if ((negotiated() & kBlkConfigWce) == 0 || offset != kBlkWriteback || data.size() != 1) return;
  config_[kBlkWriteback] = data[0] != std::byte{0} ? std::byte{1} : std::byte{0};
  peer().write_config(offset, std::span(config_).subspan(kBlkWriteback, 1));
}

void RemoteBlk::peer_config_changed() {
  load_config();
  host().config_changed();
}

void RemoteBlk::reset_kind() { load_config(); }

// The status is the last byte of what the driver lets us write (5.2.6).
std::optional<std::uint64_t> RemoteBlk::fail_request(std::uint16_t, const Chain& chain) {
  ChainWriter writer(host().memory(), chain);
  if (writer.remaining() == 0) return 0;
  writer.skip(writer.remaining() - 1);
  (void)writer.write(kBlkIoError);
  return writer.written();
}

RemoteNet::RemoteNet(std::string id, std::shared_ptr<RemotePeer> peer, MacAddress mac)
    : Remote(std::move(id), {.peer = peer,
                             .queue_sizes = sizes(2, kQueueSize),
                             .features = (peer->features() & kNetFeatures) | kNetOwnFeatures}),
      mac_(mac) {}

void RemoteNet::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  std::array<std::byte, 8> config{};
  const auto& bytes = mac_.bytes;
  std::transform(bytes.begin(), bytes.end(), config.begin(),
                 [](auto byte) { return static_cast<std::byte>(byte); });
  store_le(std::span(config).subspan(6, 2), link() ? 1 : 0);
  read_from(config, offset, data);
}

void RemoteNet::set_link(bool up) {
  if (std::exchange(link_, up) != up) host().config_changed();
}

void RemoteNet::connection_changed(bool connected) {
  if (std::exchange(connected_, connected) != connected) host().config_changed();
}

// Frames that are not there are waited for; frames to nowhere are lost.
std::optional<std::uint64_t> RemoteNet::fail_request(std::uint16_t queue, const Chain&) {
  if (queue == kReceiveQueue) return std::nullopt;
  return 0;
}

RemoteFs::RemoteFs(std::string id, std::shared_ptr<RemotePeer> peer, std::string tag)
    : Remote(std::move(id), {.peer = std::move(peer), .queue_sizes = sizes(2, kQueueSize)}),
      tag_(std::move(tag)) {}

// 5.11.4: the tag, filled up with zeroes, and the number of queues for requests.
void RemoteFs::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  std::array<std::byte, kMostTag + 4> config{};
  const auto bytes = std::as_bytes(std::span(tag_));
  std::copy_n(bytes.begin(), std::min(bytes.size(), kMostTag), config.begin());
  store_le(std::span(config).subspan(kMostTag, 4), 1);
  read_from(config, offset, data);
}

// The FUSE headers (Linux, include/uapi/linux/fuse.h). A FORGET has no room for an answer.
std::optional<std::uint64_t> RemoteFs::fail_request(std::uint16_t, const Chain& chain) {
  struct In {
    Le32 length, opcode;
    Le64 unique;
  } in;
  struct Out {
    Le32 length, error;
    Le64 unique;
  };
  ChainReader reader(host().memory(), chain);
  ChainWriter writer(host().memory(), chain);
  if (!reader.read(in)) return 0;
  const Out out{.length = std::uint32_t{sizeof(Out)},
                .error = static_cast<std::uint32_t>(-ENOTCONN),
                .unique = in.unique};
  (void)writer.write(out);
  return writer.written();
}

Result<void> RemoteFs::restore(const StateReader& reader, bool active, std::uint64_t features) {
  if (active) {
    return fail(ErrorCode::kUnsupported,
                "The shared directory '{}' was mounted when the machine was saved: which files are "
                "open, only its file server knew. Unmount it in the guest before saving",
                tag_);
  }
  return Remote::restore(reader, active, features);
}

}  // namespace vmm::virtio

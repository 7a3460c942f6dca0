#include "devices/virtio/net.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"
#include "devices/virtio/net_header.h"

namespace vmm::virtio {
namespace {

std::uint64_t offered(const NetBackend& backend) {
  std::uint64_t features = Net::kMac | Net::kMrgRxbuf | Net::kStatus | Net::kCtrlVq | Net::kCtrlRx |
                           Net::kCtrlVlan | Net::kCtrlRxExtra | Net::kGuestAnnounce |
                           Net::kCtrlMacAddr;
  const auto add = [&features](bool there, std::uint64_t bit) {
    if (there) features |= bit;
  };
  const NetOffloads to_host = backend.to_host();
  add(to_host.checksum, Net::kCsum);
  add(to_host.checksum && to_host.tso4, Net::kHostTso4);
  add(to_host.checksum && to_host.tso6, Net::kHostTso6);
  add(to_host.checksum && to_host.ecn, Net::kHostEcn);
  add(to_host.checksum && to_host.ufo, Net::kHostUfo);
  const NetOffloads to_guest = backend.to_guest();
  add(to_guest.checksum, Net::kGuestCsum | Net::kCtrlGuestOffloads);
  add(to_guest.checksum && to_guest.tso4, Net::kGuestTso4);
  add(to_guest.checksum && to_guest.tso6, Net::kGuestTso6);
  add(to_guest.checksum && to_guest.ecn, Net::kGuestEcn);
  add(to_guest.checksum && to_guest.ufo, Net::kGuestUfo);
  add(backend.mtu().has_value(), Net::kMtu);
  return features;
}

}  // namespace

NetOffloads host_offloads(std::uint64_t features) noexcept {
  return {.checksum = (features & Net::kCsum) != 0,
          .tso4 = (features & Net::kHostTso4) != 0,
          .tso6 = (features & Net::kHostTso6) != 0,
          .ecn = (features & Net::kHostEcn) != 0,
          .ufo = (features & Net::kHostUfo) != 0};
}

NetOffloads guest_offloads(std::uint64_t features) noexcept {
  return {.checksum = (features & Net::kGuestCsum) != 0,
          .tso4 = (features & Net::kGuestTso4) != 0,
          .tso6 = (features & Net::kGuestTso6) != 0,
          .ecn = (features & Net::kGuestEcn) != 0,
          .ufo = (features & Net::kGuestUfo) != 0};
}

Result<void> Net::State::validate() const {
  if ((status & ~(kLinkUp | kAnnounce)) != 0) {
    return fail(ErrorCode::kBadState, "A network device's status cannot be {:#x}", status);
  }
  if (taken.size() > kQueues[kReceive]) {
    return fail(ErrorCode::kBadState, "More receive buffers are taken than the queue has");
  }
  return {};
}

Net::Net(std::string id, const MacAddress& address, std::shared_ptr<NetBackend> backend)
    : id_(std::move(id)),
      address_(address),
      backend_(std::move(backend)),
      features_(offered(*backend_)),
      frame_(NetBackend::kMostFrame) {
  reset();
}

Net::~Net() { backend_->want_frames(false); }

Net::State Net::power_on() const {
  State state;
  state.filter.own = address_;
  state.status = backend_->link_up() ? kLinkUp : std::uint16_t{0};
  return state;
}

// Section 5.1.3.1: features that need others.
bool Net::accepts(std::uint64_t features) const noexcept {
  const auto needs = [features](std::uint64_t these, std::uint64_t one_of) {
    return (features & these) == 0 || (features & one_of) != 0;
  };
  return needs(kGuestTso4 | kGuestTso6 | kGuestUfo, kGuestCsum) &&
         needs(kGuestEcn, kGuestTso4 | kGuestTso6) &&
         needs(kHostTso4 | kHostTso6 | kHostUfo, kCsum) && needs(kHostEcn, kHostTso4 | kHostTso6) &&
         needs(kCtrlRxExtra, kCtrlRx) &&
         needs(kCtrlRx | kCtrlVlan | kGuestAnnounce | kCtrlMacAddr | kCtrlGuestOffloads, kCtrlVq);
}

void Net::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  struct Layout {  // section 5.1.4
    std::array<std::uint8_t, 6> mac;
    Le16 status;
    Le16 pairs;
    Le16 mtu;
  };
  static_assert(sizeof(Layout) == kConfigSize);
  const Layout layout{.mac = s_.filter.own.bytes,
                      .status = s_.status,
                      .pairs = std::uint16_t{1},
                      .mtu = backend_->mtu().value_or(std::uint16_t{0})};
  const auto bytes = std::as_bytes(std::span(&layout, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

void Net::settle(std::uint64_t features) {
  negotiated_ = features;
  to_host_ = host_offloads(features);
  backend_->allow_to_guest(s_.to_guest);
}

void Net::activate(std::uint64_t features) {
  s_.to_guest = guest_offloads(features);
  s_.filter.check_vlans = (features & kCtrlVlan) != 0;
  settle(features);
}

bool Net::reset() {
  s_ = power_on();
  frame_size_ = 0;
  settle(0);
  backend_->want_frames(false);
  return true;
}

bool Net::reset_queue(std::uint16_t queue) {
  if (queue == kReceive) {
    s_.taken.clear();
    frame_size_ = 0;
    backend_->want_frames(false);
  }
  return true;
}

void Net::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Net::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  VMM_TRY(state.filter.validate());
  for (Chain& chain : state.taken) {
    VMM_TRY(host().queue(kReceive).readmit(chain));
  }
  s_ = std::move(state);
  frame_size_ = 0;
  settle(active ? features : 0);
  backend_->want_frames(false);  // until the queue is looked at
  return {};
}

void Net::set_link(bool up) {
  if (up == ((s_.status & kLinkUp) != 0)) return;
  s_.status = static_cast<std::uint16_t>(s_.status ^ kLinkUp);
  if (has(kStatus)) host().config_changed();
}

void Net::announce() {
  if (!has(kGuestAnnounce)) return;
  s_.status = static_cast<std::uint16_t>(s_.status | kAnnounce);
  host().config_changed();
}

bool Net::process(std::uint16_t queue) {
  switch (queue) {
    case kReceive:
      return receive();
    case kTransmit:
      return transmit();
    default:
      return control();
  }
}

bool Net::transmit() {
  Queue& queue = host().queue(kTransmit);
  int left = kBatch;
  do {
    queue.disable_notifications();
    for (; left != 0 && queue.pop(chain_); --left) {
      send(chain_);
      queue.push_used(chain_, 0);
    }
  } while (left != 0 && queue.enable_notifications());
  backend_->end_batch();
  host().used(kTransmit);
  // A network inside this process answers at once.
  if (backend_->has_frame()) host().ring(kReceive);
  return left == 0;
}

void Net::send(const Chain& chain) {
  ChainReader reader(host().memory(), chain);
  NetHeader header;
  const bool link = (s_.status & kLinkUp) != 0;
  if (link && reader.read(header) && reader.remaining() <= NetBackend::kMostFrame &&
      admit_header(header, static_cast<std::size_t>(reader.remaining()), to_host_)) {
    const std::uint64_t size = reader.remaining();
    const std::vector<Segment> segments = reader.take(size);
    const HostView frame(host().memory(), segments);
    if (frame.bytes() == size && backend_->send(header, frame.pieces())) {
      ++counters_.sent;
      return;
    }
  }
  ++counters_.send_dropped;
}

void Net::backend_ready() {
  if (!host().active() || !host().queue(kReceive).enabled()) {
    backend_->want_frames(false);
    return;
  }
  if (receive()) host().ring(kReceive);
}

bool Net::receive() {
  bool more = true;
  int left = kBatch;
  for (; more && left != 0; --left) {
    if (frame_size_ == 0) {
      if (!next_frame()) {
        backend_->want_frames(true);
        more = false;
      }
      continue;
    }
    const Room room = take_buffers(sizeof(NetHeader) + frame_size_);
    if (room == Room::kLater) break;
    if (room == Room::kNone) {
      backend_->want_frames(false);
      more = false;
      continue;
    }
    if (room == Room::kThere) {
      deliver();
    } else {
      ++counters_.receive_dropped;
    }
    frame_size_ = 0;
  }
  host().used(kReceive);
  return more;
}

bool Net::next_frame() {
  const std::optional<std::size_t> size = backend_->receive(header_, frame_);
  if (!size) {
    if (!backend_->link_up()) set_link(false);
    return false;
  }
  if ((s_.status & kLinkUp) == 0 || !s_.filter.passes(std::span(frame_).first(*size))) {
    ++counters_.filtered;
  } else if (!may_reach_guest(header_, s_.to_guest)) {
    ++counters_.receive_dropped;
  } else {
    frame_size_ = *size;
  }
  return true;
}

Net::Room Net::take_buffers(std::size_t bytes) {
  Queue& queue = host().queue(kReceive);
  std::uint64_t room = 0;
  for (const Chain& chain : s_.taken) room += chain.writable_bytes();
  for (std::uint32_t left = queue.size();;) {
    if (room >= bytes) return Room::kThere;
    // One buffer has to do, or all that the ring can ever have are not enough.
    if (!s_.taken.empty() && !has(kMrgRxbuf)) return Room::kNeverForThis;
    if (!s_.taken.empty() && queue.in_flight() >= queue.size()) return Room::kNeverForThis;
    if (!queue.pop(chain_)) {
      if (left-- == 0) return Room::kLater;
      if (!queue.enable_notifications()) return Room::kNone;
      continue;
    }
    queue.disable_notifications();
    const std::uint64_t size = chain_.writable_bytes();
    if (size < sizeof(NetHeader)) {
      queue.push_used(chain_, 0);  // of no use to anybody
      if (left-- == 0) return Room::kLater;
      continue;
    }
    room += size;
    s_.taken.push_back(std::exchange(chain_, {}));
  }
}

void Net::deliver() {
  const bool merge = has(kMrgRxbuf);
  const std::size_t bytes = sizeof(NetHeader) + frame_size_;
  std::size_t count = 0;
  for (std::uint64_t room = 0; room < bytes; ++count) room += s_.taken[count].writable_bytes();
  header_.flags = s_.to_guest.checksum
                      ? static_cast<std::uint8_t>(
                            header_.flags & (NetHeader::kNeedsChecksum | NetHeader::kDataValid))
                      : std::uint8_t{0};
  header_.buffers = merge ? static_cast<std::uint16_t>(count) : std::uint16_t{1};

  answers_.clear();
  std::span<const std::byte> rest = std::span(frame_).first(frame_size_);
  for (std::size_t i = 0; i < count; ++i) {
    ChainWriter writer(host().memory(), s_.taken[i]);
    if (i == 0) (void)writer.write(header_);
    rest = rest.subspan(writer.write(rest));
    answers_.push_back({&s_.taken[i], writer.written()});
  }
  host().queue(kReceive).push_used_together(answers_);
  s_.taken.erase(s_.taken.begin(), s_.taken.begin() + static_cast<std::ptrdiff_t>(count));
  ++counters_.received;
}

}  // namespace vmm::virtio

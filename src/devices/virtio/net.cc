#include "devices/virtio/net.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "devices/state_io.h"
#include "devices/virtio/net_header.h"

namespace vmm::virtio {
namespace {

std::uint64_t offered(const NetBackend& backend, std::size_t pairs) {
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
  add(pairs > 1, Net::kMq);
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
  if (pairs < 1 || pairs > taken.size()) {
    return fail(ErrorCode::kBadState, "{} of {} pairs of queues are switched on", pairs,
                taken.size());
  }
  for (const std::vector<Chain>& chains : taken) {
    if (chains.size() > kDataQueueSize) {
      return fail(ErrorCode::kBadState, "More receive buffers are taken than the queue has");
    }
  }
  return {};
}

Net::Net(std::string id, const MacAddress& address, std::shared_ptr<NetBackend> backend)
    : Net(std::move(id), address, std::vector{std::move(backend)}) {}

Net::Net(std::string id, const MacAddress& address, std::vector<std::shared_ptr<NetBackend>> queues)
    : id_(std::move(id)), address_(address), features_(offered(*queues.front(), queues.size())) {
  VMM_ASSERT(queues.size() <= kMostPairs);
  for (std::shared_ptr<NetBackend>& queue : queues) {
    pairs_.push_back({.backend = std::move(queue)});
    queue_sizes_.insert(queue_sizes_.end(), 2, kDataQueueSize);
  }
  queue_sizes_.push_back(kControlQueueSize);
  reset();
}

Net::~Net() { stop_backends(); }

void Net::retire() {
  stop_backends();
  for (Pair& pair : pairs_) pair.backend.reset();
}

void Net::stop_backends() {
  for (const Pair& pair : pairs_) {
    if (pair.backend != nullptr) pair.backend->want_frames(false);
  }
}

Net::State Net::power_on() const {
  State state;
  state.filter.own = address_;
  state.status = backend().link_up() ? kLinkUp : std::uint16_t{0};
  state.taken.resize(pairs_.size());
  return state;
}

std::uint16_t Net::control_queue() const noexcept {
  return has(kMq) ? static_cast<std::uint16_t>(2 * pairs_.size()) : kControl;
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
         needs(kCtrlRx | kCtrlVlan | kGuestAnnounce | kCtrlMacAddr | kCtrlGuestOffloads | kMq,
               kCtrlVq);
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
                      .pairs = static_cast<std::uint16_t>(pairs_.size()),
                      .mtu = backend().mtu().value_or(std::uint16_t{0})};
  const auto bytes = std::as_bytes(std::span(&layout, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

void Net::settle(std::uint64_t features) {
  negotiated_ = features;
  to_host_ = host_offloads(features);
  for (const Pair& pair : pairs_) pair.backend->allow_to_guest(s_.to_guest);
  settle_pairs();
}

// A queue that is off gets no frames, so that the network spreads them over the others.
void Net::settle_pairs() {
  if (pairs_.size() == 1) return;
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    if (!switched_on(i)) {
      pairs_[i].backend->want_frames(false);
      pairs_[i].frame_size = 0;
    }
    pairs_[i].backend->set_enabled(switched_on(i));
  }
}

void Net::activate(std::uint64_t features) {
  s_.to_guest = guest_offloads(features);
  s_.filter.check_vlans = (features & kCtrlVlan) != 0;
  settle(features);
}

bool Net::reset() {
  s_ = power_on();
  for (Pair& pair : pairs_) pair.frame_size = 0;
  settle(0);
  stop_backends();
  return true;
}

bool Net::reset_queue(std::uint16_t queue) {
  const std::size_t index = queue / 2U;
  if (queue != control_queue() && index < pairs_.size() && queue == receive_queue(index)) {
    s_.taken[index].clear();
    pairs_[index].frame_size = 0;
    pairs_[index].backend->want_frames(false);
  }
  return true;
}

void Net::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Net::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  VMM_TRY(state.filter.validate());
  if (state.taken.size() != pairs_.size()) {
    return fail(ErrorCode::kBadState,
                "A network interface with {} pairs of queues was saved with {}", pairs_.size(),
                state.taken.size());
  }
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    for (Chain& chain : state.taken[i]) {
      VMM_TRY(host().queue(receive_queue(i)).readmit(chain));
    }
  }
  s_ = std::move(state);
  for (Pair& pair : pairs_) pair.frame_size = 0;
  settle(active ? features : 0);
  stop_backends();  // until the queues are looked at
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
  if (queue == control_queue()) return control();
  const std::size_t pair = queue / 2U;
  // Without kMq there is one pair, whatever the device has.
  if (pair >= pairs_.size() || (pair != 0 && !has(kMq))) return false;
  return queue == receive_queue(pair) ? receive(pair) : transmit(pair);
}

bool Net::transmit(std::size_t index) {
  Pair& pair = pairs_[index];
  Queue& queue = host().queue(transmit_queue(index));
  int left = kBatch;
  do {
    queue.disable_notifications();
    for (; left != 0 && queue.pop(chain_); --left) {
      ++(send(pair, chain_) ? counters_.sent : counters_.send_dropped);
      queue.add_used(chain_, 0);
      if (left % kPublished == 1) queue.publish_used();
    }
  } while (left != 0 && queue.enable_notifications());
  pair.backend->end_batch();
  host().used(transmit_queue(index));
  // A network inside this process answers at once.
  if (pair.backend->has_frame()) host().ring(receive_queue(index));
  return left == 0;
}

bool Net::send(Pair& pair, const Chain& chain) {
  ChainReader reader(host().memory(), chain);
  NetHeader header;
  const bool link = (s_.status & kLinkUp) != 0;
  if (!link || !reader.read(header) || reader.remaining() > NetBackend::kMostFrame ||
      !admit_header(header, static_cast<std::size_t>(reader.remaining()), to_host_)) {
    return false;
  }
  const std::uint64_t size = reader.remaining();
  view_.take(reader, size);
  const bool sent = view_.bytes() == size && pair.backend->send(header, view_.pieces());
  view_.clear();
  return sent;
}

void Net::backend_ready(std::size_t index) {
  if (!host().active() || !switched_on(index) || !host().queue(receive_queue(index)).enabled()) {
    pairs_[index].backend->want_frames(false);
    return;
  }
  if (receive(index)) host().ring(receive_queue(index));
}

bool Net::receive(std::size_t index) {
  if (!switched_on(index)) return false;
  Pair& pair = pairs_[index];
  Queue& queue = host().queue(receive_queue(index));
  bool more = true;
  for (int left = kBatch; more && left != 0; --left) {
    if (pair.frame_size == 0 && !next_frame(index)) {
      pair.backend->want_frames(true);
      more = false;
      continue;
    }
    if (pair.frame_size == 0) continue;
    const Room room = take_buffers(index, sizeof(NetHeader) + pair.frame_size);
    if (room == Room::kLater) break;
    if (room == Room::kNone) {
      pair.backend->want_frames(false);
      more = false;
      continue;
    }
    if (room == Room::kThere) {
      deliver(index);
    } else {
      ++counters_.receive_dropped;
    }
    pair.frame_size = 0;
    if (left % kPublished == 1) queue.publish_used();
  }
  queue.publish_used();
  host().used(receive_queue(index));
  return more;
}

bool Net::next_frame(std::size_t index) {
  Pair& pair = pairs_[index];
  std::array<std::byte, NetBackend::kMostFrame>& frame = pair.in->frame;
  const HostView view = room_in_place(index);
  const std::size_t direct = view.bytes();
  // The places of the pieces in the guest stay free here, for a frame that turns out too large.
  pieces_.clear();
  if (direct != 0) pieces_.push_back({frame.data(), kHead});
  pieces_.insert(pieces_.end(), view.pieces().begin(), view.pieces().end());
  const std::size_t behind = direct != 0 ? kHead + direct : 0;
  pieces_.push_back({frame.data() + behind, frame.size() - behind});
  const std::optional<std::size_t> size = pair.backend->receive(pair.in->header, pieces_);
  if (!size) {
    if (!pair.backend->link_up()) set_link(false);
    return false;
  }
  pair.last_size = *size;
  pair.in_place = *size > kHead && *size <= behind ? *size - kHead : 0;
  if (*size > behind) {
    std::size_t at = kHead;
    for (const ::iovec& piece : view.pieces()) {
      std::memcpy(frame.data() + at, piece.iov_base, piece.iov_len);
      at += piece.iov_len;
    }
  }
  if ((s_.status & kLinkUp) == 0 ||
      !s_.filter.passes(std::span(frame).first(std::min(*size, kHead)))) {
    ++counters_.filtered;
  } else if (!may_reach_guest(pair.in->header, s_.to_guest)) {
    ++counters_.receive_dropped;
  } else {
    pair.frame_size = *size;
  }
  return true;
}

HostView Net::room_in_place(std::size_t index) {
  const Pair& pair = pairs_[index];
  HostView view;
  if (pair.last_size < kLarge || (s_.status & kLinkUp) == 0) return view;
  if (take_buffers(index, sizeof(NetHeader) + pair.last_size) != Room::kThere) return view;
  segments_.clear();
  for (const Chain& chain : s_.taken[index]) {
    const auto segments = chain.writable_segments();
    segments_.insert(segments_.end(), segments.begin(), segments.end());
  }
  SegmentCursor cursor(host().memory(), segments_);
  cursor.skip(sizeof(NetHeader) + kHead);
  const std::uint64_t room =
      std::min<std::uint64_t>(cursor.remaining(), NetBackend::kMostFrame - kHead);
  view.take(cursor, room);
  if (view.bytes() != room || view.pieces().size() > kMostInPlace) view.clear();
  return view;
}

Net::Room Net::take_buffers(std::size_t index, std::size_t bytes) {
  Queue& queue = host().queue(receive_queue(index));
  std::vector<Chain>& taken = s_.taken[index];
  std::uint64_t room = 0;
  for (const Chain& chain : taken) room += chain.writable_bytes();
  for (std::uint32_t left = queue.size();;) {
    if (room >= bytes) return Room::kThere;
    // One buffer has to do, or all that the ring can ever have are not enough.
    if (!taken.empty() && !has(kMrgRxbuf)) return Room::kNeverForThis;
    if (!taken.empty() && queue.in_flight() >= queue.size()) {
      queue.publish_used();  // what the driver has not heard of counts as in flight
      if (queue.in_flight() >= queue.size()) return Room::kNeverForThis;
    }
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
    taken.push_back(std::exchange(chain_, {}));
  }
}

void Net::deliver(std::size_t index) {
  Pair& pair = pairs_[index];
  std::vector<Chain>& taken = s_.taken[index];
  const bool merge = has(kMrgRxbuf);
  const std::size_t bytes = sizeof(NetHeader) + pair.frame_size;
  std::size_t count = 0;
  for (std::uint64_t room = 0; room < bytes; ++count) room += taken[count].writable_bytes();
  NetHeader& header = pair.in->header;
  header.flags = s_.to_guest.checksum
                     ? static_cast<std::uint8_t>(
                           header.flags & (NetHeader::kNeedsChecksum | NetHeader::kDataValid))
                     : std::uint8_t{0};
  header.buffers = merge ? static_cast<std::uint16_t>(count) : std::uint16_t{1};

  std::span<const std::byte> rest = std::as_bytes(std::span(pair.in.get(), 1));
  rest = rest.first(bytes - pair.in_place);
  std::uint64_t there = pair.in_place;
  for (std::size_t i = 0; i < count; ++i) {
    ChainWriter writer(host().memory(), taken[i]);
    rest = rest.subspan(writer.write(rest));
    if (rest.empty()) there -= writer.skip(there);
    host().queue(receive_queue(index)).add_used(taken[i], writer.written());
  }
  taken.erase(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(count));
  ++counters_.received;
}

}  // namespace vmm::virtio

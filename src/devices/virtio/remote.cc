#include "devices/virtio/remote.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {

Remote::Remote(std::string id, Options options)
    : id_(std::move(id)),
      peer_(std::move(options.peer)),
      queue_sizes_(std::move(options.queue_sizes)),
      offered_(options.features),
      reconnect_(options.reconnect),
      lines_(queue_sizes_.size()) {
  for (Line& line : lines_) line.slots.resize(peer_->most_segments());
}

// The peer keeps its own hold on guest memory: there is nothing to wait for.
Remote::~Remote() {
  if (phase_ != Phase::kIdle) peer_->stop();
}

std::optional<bool> Remote::connected() const noexcept {
  if (phase_ == Phase::kIdle || phase_ == Phase::kEnding) return std::nullopt;
  return phase_ == Phase::kServing;
}

std::size_t Remote::under_way() const noexcept {
  std::size_t count = 0;
  for (const Line& line : lines_) {
    count += line.again.size();
    count += static_cast<std::size_t>(std::count_if(
        line.slots.begin(), line.slots.end(), [](const auto& slot) { return slot.has_value(); }));
  }
  return count;
}

void Remote::activate(std::uint64_t features) {
  features_ = features;
  start_peer();
}

void Remote::start_peer() {
  phase_ = Phase::kWaiting;
  peer_->start(host().memory(), features_ & peer_->features(),
               static_cast<std::uint16_t>(lines_.size()), reconnect_ && counters_.losses != 0);
}

bool Remote::process(std::uint16_t queue) {
  if (lines_[queue].restarting) return false;
  switch (phase_) {
    case Phase::kServing:
      return relay(queue);
    case Phase::kAlone:
      return fail_all(queue);
    case Phase::kIdle:
    case Phase::kWaiting:  // every queue is rung when the peer is there
    case Phase::kEnding:
      break;
  }
  return false;
}

bool Remote::relay(std::uint16_t index) {
  Queue& queue = host().queue(index);
  Line& line = lines_[index];
  std::uint32_t left = queue.size();
  bool stopped = !hand_over_again(index);
  do {
    queue.disable_notifications();
    for (; !stopped && left != 0 && queue.pop(chain_); --left) {
      if (hand_over(index, chain_)) continue;
      queue.undo_pop(chain_);
      stopped = true;
    }
    // Answers make room, and the queue is rung then.
  } while (!stopped && left != 0 && queue.enable_notifications());
  line.stalled = stopped;
  peer_->kick(index);
  return !stopped && left == 0;
}

bool Remote::hand_over_again(std::uint16_t index) {
  std::vector<Chain>& again = lines_[index].again;
  const auto kept = std::find_if(again.begin(), again.end(),
                                 [&](Chain& chain) { return !hand_over(index, chain); });
  again.erase(again.begin(), kept);
  return again.empty();
}

bool Remote::hand_over(std::uint16_t index, Chain& chain) {
  // There will never be room for this one.
  if (chain.segments.size() > peer_->most_segments()) {
    if (!give_up(index, chain)) host().queue(index).push_used(chain, 0);
    host().used(index);
    return true;
  }
  const std::optional<std::uint16_t> slot = peer_->submit(index, chain);
  if (!slot) return false;
  // The slot's old memory serves the next pop().
  std::optional<Chain>& place = lines_[index].slots[*slot];
  if (!place) place.emplace();
  std::swap(*place, chain);
  return true;
}

bool Remote::give_up(std::uint16_t index, const Chain& chain) {
  const std::optional<std::uint64_t> written = fail_request(index, chain);
  if (!written) return false;
  ++counters_.requests;
  ++counters_.errors;
  host().queue(index).push_used(chain, *written);
  return true;
}

bool Remote::fail_all(std::uint16_t index) {
  Queue& queue = host().queue(index);
  std::uint32_t left = queue.size();
  bool stays = false;
  do {
    queue.disable_notifications();
    for (; !stays && left != 0 && queue.pop(chain_); --left) {
      if (give_up(index, chain_)) continue;
      queue.undo_pop(chain_);
      stays = true;
    }
  } while (!stays && left != 0 && queue.enable_notifications());
  host().used(index);
  return !stays && left == 0;
}

void Remote::peer_ready() {
  peer_->clear_ready();
  const RemotePeer::News news = peer_->take_news();
  if (news.config_changed) peer_config_changed();
  finish_restarts(news.restarted);
  if (news.state == RemotePeer::State::kRunning && phase_ == Phase::kWaiting) begin_serving();
  if (phase_ == Phase::kServing) {
    for (std::uint16_t queue = 0; queue < lines_.size(); ++queue) take_answers(queue);
  }
  // A lie may have been among the answers.
  const RemotePeer::State state = peer_->take_news().state;
  if (state == RemotePeer::State::kGone) {
    peer_gone();
  } else if (state == RemotePeer::State::kStopped && phase_ == Phase::kEnding) {
    phase_ = Phase::kIdle;
    host().reset_finished();
  }
}

void Remote::begin_serving() {
  phase_ = Phase::kServing;
  connection_changed(true);
  for (std::uint16_t queue = 0; queue < lines_.size(); ++queue) host().ring(queue);
}

void Remote::take_answers(std::uint16_t index) {
  Line& line = lines_[index];
  if (line.restarting) return;
  bool any = false;
  while (const auto done = peer_->next_done(index)) {
    if (done->slot >= line.slots.size() || !line.slots[done->slot]) continue;
    ++counters_.requests;
    host().queue(index).push_used(*line.slots[done->slot], done->written);
    line.slots[done->slot].reset();
    any = true;
  }
  if (!any) return;
  host().used(index);
  if (std::exchange(line.stalled, false)) host().ring(index);
}

void Remote::recall(Line& line) {
  for (std::optional<Chain>& slot : line.slots) {
    if (!slot) continue;
    line.again.push_back(*std::move(slot));
    slot.reset();
  }
  line.stalled = false;
}

void Remote::peer_gone() {
  if (phase_ == Phase::kEnding) {
    phase_ = Phase::kIdle;
    host().reset_finished();
    return;
  }
  if (phase_ != Phase::kWaiting && phase_ != Phase::kServing) return;
  ++counters_.losses;
  for (Line& line : lines_) recall(line);
  std::vector<std::uint16_t> restarting;
  for (std::uint16_t queue = 0; queue < lines_.size(); ++queue) restarting.push_back(queue);
  finish_restarts(restarting);
  if (reconnect_) {
    start_peer();
    return;
  }
  phase_ = Phase::kAlone;
  connection_changed(false);
  for (std::uint16_t queue = 0; queue < lines_.size(); ++queue) {
    std::erase_if(lines_[queue].again, [&](const Chain& chain) { return give_up(queue, chain); });
    host().used(queue);
    host().ring(queue);
  }
}

void Remote::finish_restarts(std::span<const std::uint16_t> queues) {
  bool any = false;
  for (const std::uint16_t queue : queues) {
    if (queue < lines_.size()) any |= std::exchange(lines_[queue].restarting, false);
  }
  const bool pending =
      std::any_of(lines_.begin(), lines_.end(), [](const Line& line) { return line.restarting; });
  // The transport takes it for the end of all that is pending.
  if (any && !pending && phase_ != Phase::kEnding) host().reset_finished();
}

void Remote::forget_requests() {
  for (Line& line : lines_) {
    for (std::optional<Chain>& slot : line.slots) slot.reset();
    line.again.clear();
    line.stalled = line.restarting = false;
  }
}

bool Remote::reset() {
  features_ = 0;
  forget_requests();
  reset_kind();
  if (phase_ == Phase::kWaiting || phase_ == Phase::kServing) {
    phase_ = Phase::kEnding;
    peer_->stop();
  } else if (phase_ == Phase::kAlone) {
    phase_ = Phase::kIdle;
  }
  return phase_ == Phase::kIdle;
}

bool Remote::reset_queue(std::uint16_t queue) {
  Line& line = lines_[queue];
  for (std::optional<Chain>& slot : line.slots) slot.reset();
  line.again.clear();
  line.stalled = false;
  if (phase_ != Phase::kServing) return true;
  if (!std::exchange(line.restarting, true)) peer_->restart_queue(queue);
  return false;
}

void Remote::save(StateWriter& writer) const {
  State state;
  for (std::uint16_t queue = 0; queue < lines_.size(); ++queue) {
    for (const Chain& chain : lines_[queue].again) state.in_flight.push_back({queue, chain});
    for (const std::optional<Chain>& slot : lines_[queue].slots) {
      if (slot) state.in_flight.push_back({queue, *slot});
    }
  }
  writer.put(state);
}

Result<void> Remote::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  for (InFlight& one : state.in_flight) {
    if (!active || one.queue >= lines_.size()) {
      return fail(ErrorCode::kBadState, "A request of '{}' was saved for a queue that has none",
                  id_);
    }
    VMM_TRY(host().queue(one.queue).readmit(one.chain));
  }
  // A start that follows waits for this.
  if (phase_ != Phase::kIdle) peer_->stop();
  phase_ = Phase::kIdle;
  features_ = active ? features : 0;
  forget_requests();
  for (InFlight& one : state.in_flight) lines_[one.queue].again.push_back(std::move(one.chain));
  return {};
}

void Remote::resume() { start_peer(); }

}  // namespace vmm::virtio

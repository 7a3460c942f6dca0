#include "devices/virtio/transport_core.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

constexpr std::uint64_t kCoreFeatures = kFeatureVersion1 | kFeatureIndirectDesc | kFeatureEventIdx |
                                        kFeatureRingPacked | kFeatureRingReset;
// The bits a driver may set, in the order in which section 3.1.1 has them set.
constexpr std::uint8_t kDriverBits = kAcknowledge | kDriver | kFeaturesOk | kDriverOk | kFailed;

std::uint32_t half(std::uint64_t bits, std::uint32_t select) noexcept {
  return select < 2 ? static_cast<std::uint32_t>(bits >> (32 * select)) : 0;
}

}  // namespace

Result<void> CoreState::validate() const {
  const auto needs = [this](std::uint8_t bit, std::uint8_t other) {
    return (status & bit) == 0 || (status & other) != 0;
  };
  if ((status & ~(kDriverBits | kNeedsReset)) != 0 || !needs(kDriver, kAcknowledge) ||
      !needs(kFeaturesOk, kDriver) || !needs(kDriverOk, kFeaturesOk)) {
    return fail(ErrorCode::kBadState, "A virtio device's status cannot be {:#x}", status);
  }
  return {};
}

TransportCore::TransportCore(std::unique_ptr<Device> device, const GuestMemory& memory,
                             Carrier& carrier, EventLog* log)
    : device_(std::move(device)),
      memory_(memory),
      carrier_(carrier),
      offered_(device_->features() | kCoreFeatures) {
  for (const std::uint16_t size : device_->queue_sizes()) {
    queues_.push_back(
        std::make_unique<Queue>(memory_, size, [this](std::string_view why) { needs_reset(why); }));
  }
  if (log != nullptr) {
    const std::uint16_t number = log->number_of(device_->id());
    for (std::size_t i = 0; i < queues_.size(); ++i) {
      queues_[i]->write_down_in(*log, number, static_cast<std::uint16_t>(i));
    }
  }
  queue_resetting_.resize(queues_.size());
  device_->connect(*this);
}

TransportCore::~TransportCore() = default;

void TransportCore::set_status(std::uint8_t status) {
  if (status == 0) return reset();
  if (resetting_) return;
  // A driver only ever adds bits (section 2.1.1).
  if ((s_.status & kDriverBits & ~status) != 0) return;
  const auto wants = [&](std::uint8_t bit, std::uint8_t after) {
    return (status & ~s_.status & bit) != 0 && (s_.status & after) == after;
  };
  const auto set = [&](std::uint8_t bit) {
    s_.status = static_cast<std::uint8_t>(s_.status | bit);
  };
  if ((status & kFailed) != 0 && (s_.status & kFailed) == 0) {
    set(kFailed);
    carrier_.on_active(false);
  }
  if (wants(kAcknowledge, 0)) set(kAcknowledge);
  if (wants(kDriver, kAcknowledge)) set(kDriver);
  if (wants(kFeaturesOk, kDriver) && acceptable(s_.driver_features)) set(kFeaturesOk);
  if (wants(kDriverOk, kFeaturesOk)) {
    set(kDriverOk);
    if (!active()) return;
    device_->activate(s_.driver_features);
    carrier_.on_active(true);
    // What was made available before DRIVER_OK was announced by nobody.
    for (std::uint16_t i = 0; i < queues(); ++i) ring(i);
  }
}

bool TransportCore::acceptable(std::uint64_t features) const noexcept {
  return (features & ~offered_) == 0 && (features & kFeatureVersion1) != 0 &&
         device_->accepts(features);
}

void TransportCore::set_device_feature_select(std::uint32_t select) {
  s_.device_feature_select = select;
}
std::uint32_t TransportCore::device_features() const noexcept {
  return half(offered_, s_.device_feature_select);
}
void TransportCore::set_driver_feature_select(std::uint32_t select) {
  s_.driver_feature_select = select;
}
std::uint32_t TransportCore::driver_features() const noexcept {
  return half(s_.driver_features, s_.driver_feature_select);
}
void TransportCore::set_driver_features(std::uint32_t bits) {
  if ((s_.status & kFeaturesOk) != 0 || resetting_ || s_.driver_feature_select > 1) return;
  const std::uint32_t shift = 32 * s_.driver_feature_select;
  s_.driver_features &= ~(std::uint64_t{0xffff'ffff} << shift);
  s_.driver_features |= std::uint64_t{bits} << shift;
}

void TransportCore::set_queue_select(std::uint16_t index) { s_.queue_select = index; }

const Queue* TransportCore::selected() const noexcept {
  return s_.queue_select < queues_.size() ? queues_[s_.queue_select].get() : nullptr;
}
Queue* TransportCore::selected_for_setup() noexcept {
  if (s_.queue_select >= queues_.size() || resetting_ || queue_resetting_[s_.queue_select]) {
    return nullptr;
  }
  return queues_[s_.queue_select].get();
}
std::uint16_t TransportCore::queue_size() const noexcept {
  const Queue* const queue = selected();
  return queue != nullptr ? queue->size() : std::uint16_t{0};
}
void TransportCore::set_queue_size(std::uint16_t size) {
  if (Queue* const queue = selected_for_setup()) queue->set_size(size);
}
void TransportCore::set_queue_descriptors(std::uint64_t address) {
  if (Queue* const queue = selected_for_setup()) queue->set_descriptors(address);
}
void TransportCore::set_queue_driver(std::uint64_t address) {
  if (Queue* const queue = selected_for_setup()) queue->set_driver(address);
}
void TransportCore::set_queue_device(std::uint64_t address) {
  if (Queue* const queue = selected_for_setup()) queue->set_device(address);
}
bool TransportCore::queue_enabled() const noexcept {
  const Queue* const queue = selected();
  return queue != nullptr && (queue->state().enabled || queue_resetting_[s_.queue_select]);
}
bool TransportCore::queue_reset_pending() const noexcept {
  return s_.queue_select < queues_.size() && queue_resetting_[s_.queue_select];
}

void TransportCore::enable_queue() {
  Queue* const queue = selected_for_setup();
  // The ring's format is only known when features are settled.
  if (queue == nullptr || (s_.status & kFeaturesOk) == 0) return;
  if ((s_.status & (kNeedsReset | kFailed)) != 0) return;
  if (queue->state().enabled || !queue->enable(s_.driver_features)) return;
  if (active()) ring(s_.queue_select);
}

void TransportCore::reset_queue() {
  Queue* const queue = selected_for_setup();
  if (queue == nullptr || !queue->state().enabled) return;
  const std::uint16_t index = s_.queue_select;
  queue->reset();  // first: what the device gives back now is dropped
  // A broken device, too: it keeps no requests of a queue that there is not any more.
  const bool has_run = (s_.status & kDriverOk) != 0 && !resetting_;
  if (has_run && !device_->reset_queue(index)) queue_resetting_[index] = true;
}

void TransportCore::read_config(std::uint64_t offset, std::span<std::byte> data) const {
  const std::uint64_t size = device_->config_size();
  if (offset >= size) return;
  const std::uint64_t bytes = std::min<std::uint64_t>(data.size(), size - offset);
  device_->read_config(static_cast<std::uint32_t>(offset),
                       data.first(static_cast<std::size_t>(bytes)));
}

void TransportCore::write_config(std::uint64_t offset, std::span<const std::byte> data) {
  const std::uint64_t size = device_->config_size();
  if (resetting_ || offset >= size || data.size() > size - offset) return;
  device_->write_config(static_cast<std::uint32_t>(offset), data);
}

void TransportCore::notify(std::uint32_t queue) {
  if (queue < queues_.size() && active()) carrier_.ring(static_cast<std::uint16_t>(queue));
}

void TransportCore::process(std::uint16_t queue) {
  if (queue >= queues_.size() || !active() || !queues_[queue]->enabled()) return;
  if (device_->process(queue)) carrier_.ring(queue);
}

bool TransportCore::begin_polling(std::uint16_t queue) {
  if (queue >= queues_.size() || !active() || !device_->polls(queue)) return false;
  queues_[queue]->hold_notifications();
  if (polled_queues_++ == 0) device_->set_polled(true);
  return true;
}

bool TransportCore::poll(std::uint16_t queue) {
  if (queue >= queues_.size() || !active()) return false;
  const bool finished = device_->poll();
  if (!queues_[queue]->available()) return finished;
  process(queue);
  return true;
}

void TransportCore::end_polling(std::uint16_t queue) {
  if (queue >= queues_.size()) return;
  // Another thread may look at other queues still.
  if (--polled_queues_ == 0) device_->set_polled(false);
  if (queues_[queue]->release_notifications() && active()) carrier_.ring(queue);
}

bool TransportCore::active() const noexcept {
  return (s_.status & kDriverOk) != 0 && (s_.status & (kNeedsReset | kFailed)) == 0 && !resetting_;
}

void TransportCore::used(std::uint16_t index) {
  queues_[index]->publish_used();
  if (queues_[index]->take_interrupt() && active()) carrier_.raise_queue_interrupt(index);
}

void TransportCore::ring(std::uint16_t index) {
  if (index < queues_.size()) carrier_.ring(index);
}

void TransportCore::config_changed() {
  ++s_.config_generation;
  if (active()) carrier_.raise_config_interrupt();
}

void TransportCore::needs_reset(std::string_view) {
  if ((s_.status & kNeedsReset) != 0 || resetting_) return;
  ++broken_count_;
  s_.status = static_cast<std::uint8_t>(s_.status | kNeedsReset);
  if ((s_.status & kDriverOk) != 0) carrier_.raise_config_interrupt();
  carrier_.on_active(false);
}

void TransportCore::reset() {
  if (resetting_) return;
  for (const auto& queue : queues_) queue->reset();  // first: what comes back now is dropped
  resetting_ = true;  // a device may say within reset() that it is done
  if (device_->reset()) finish_reset();
}

void TransportCore::reset_finished() {
  if (resetting_) finish_reset();
  std::fill(queue_resetting_.begin(), queue_resetting_.end(), false);
}

void TransportCore::finish_reset() {
  resetting_ = false;
  std::fill(queue_resetting_.begin(), queue_resetting_.end(), false);
  s_ = CoreState{};
  carrier_.on_active(false);
  carrier_.on_reset();
}

CoreState TransportCore::state() const {
  CoreState state = resetting_ ? CoreState{} : s_;
  for (const auto& queue : queues_) state.queues.push_back(queue->state());
  return state;
}

void TransportCore::restore_queues(const std::vector<QueueState>& states, std::uint64_t features) {
  for (std::size_t i = 0; i < queues_.size(); ++i) queues_[i]->restore(states[i], features);
}

Result<void> TransportCore::restore(const CoreState& state, const StateReader& device) {
  VMM_TRY(state.validate());
  if (state.queues.size() != queues_.size()) {
    return fail(ErrorCode::kBadState, "'{}' has {} queues, its saved state {}", device_->id(),
                queues_.size(), state.queues.size());
  }
  const bool settled = (state.status & kFeaturesOk) != 0;
  if (settled && !acceptable(state.driver_features)) {
    return fail(ErrorCode::kBadState, "'{}' was saved with features that it does not offer",
                device_->id());
  }
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    if (state.queues[i].enabled && !settled) {
      return fail(ErrorCode::kBadState, "A queue is enabled before features are settled");
    }
    VMM_TRY(queues_[i]->check(state.queues[i], state.driver_features));
  }
  const CoreState before = this->state();
  const bool now_active =
      (state.status & kDriverOk) != 0 && (state.status & (kNeedsReset | kFailed)) == 0;
  restore_queues(state.queues, state.driver_features);
  auto restored = device_->restore(device, now_active, state.driver_features);
  if (!restored) {
    restore_queues(before.queues, before.driver_features);
    return restored;
  }
  s_ = state;
  s_.queues.clear();
  resetting_ = false;
  std::fill(queue_resetting_.begin(), queue_resetting_.end(), false);
  carrier_.on_active(now_active);
  if (now_active) {
    device_->resume();
    for (std::uint16_t i = 0; i < queues(); ++i) ring(i);
  }
  return {};
}

}  // namespace vmm::virtio

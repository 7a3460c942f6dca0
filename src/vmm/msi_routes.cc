#include "vmm/msi_routes.h"

#include <atomic>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/event_fd.h"

namespace vmm {
namespace {

// What KVM takes into its table, whichever way its local APICs are addressed: one entry that it
// refuses would cost all of them their route. Everything else goes by KVM_SIGNAL_MSI, which judges
// it alone. SDM volume 3, 11.11.1.
bool can_be_routed(const MsiMessage& message) {
  constexpr std::uint64_t kLocalApics = 0xfee0'0000, kMask = ~std::uint64_t{0xf'ffff};
  return (message.address & kMask) == kLocalApics;
}

// A vector's GSI.
struct Place {
  std::uint32_t gsi = 0;
  std::optional<EventFd> event;
  bool attached = false;               // the event loop's thread only
  std::atomic<bool> ready{false};      // `wanted` is where `event` leads; set under the lock
  std::optional<MsiMessage> wanted;    // under the lock
  std::optional<MsiMessage> in_table;  // under the lock
};

}  // namespace

class MsiRoutes::State : public std::enable_shared_from_this<State> {
 public:
  State(Host host, EventLoop& loop) : host_(std::move(host)), loop_(loop) {
    for (std::size_t i = host_.gsis; i > 0; --i) {
      free_.push_back(host_.first_gsi + static_cast<std::uint32_t>(i - 1));
    }
  }

  const Host& host() const { return host_; }

  void add(const std::shared_ptr<Place>& place) {
    std::lock_guard<std::mutex> lock(mutex_);
    places_.push_back(place);
  }

  // The vector is gone: its GSI is somebody else's from now on. KVM forgets the eventfd by itself.
  void remove(const std::shared_ptr<Place>& place) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::erase(places_, place);
    if (place->gsi != 0) free_.push_back(place->gsi);
  }

  // The place's message is no longer what it was.
  void withdraw(Place& place) {
    std::lock_guard<std::mutex> lock(mutex_);
    place.ready = false;
    place.wanted.reset();
  }

  void want(Place& place, const MsiMessage& message) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      place.wanted = message;
      if (std::exchange(posted_, true)) return;
    }
    loop_.post([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->apply();
    });
  }

 private:
  struct Change {
    std::shared_ptr<Place> place;
    MsiMessage message;
  };

  // On the event loop's thread. The order matters: a place is not used from when the table that
  // changes it is put together until KVM has it.
  void apply() {
    std::vector<kvm::GsiRoute> table;
    const std::vector<Change> changes = collect(table);
    if (changes.empty()) return;
    const bool done = host_.set_routes(table).has_value();
    for (const Change& change : changes) finish(change, done);
  }

  // What has to change, and the table with it.
  std::vector<Change> collect(std::vector<kvm::GsiRoute>& table) {
    std::vector<Change> changes;
    std::lock_guard<std::mutex> lock(mutex_);
    posted_ = false;
    for (const auto& place : places_) {
      if (place->wanted && !place->ready && get_gsi(*place)) {
        changes.push_back({place, *place->wanted});
        place->in_table = place->wanted;
      }
      if (place->in_table) {
        table.push_back({.gsi = place->gsi,
                         .is_msi = true,
                         .msi_address = place->in_table->address,
                         .msi_data = place->in_table->data});
      }
    }
    return changes;
  }

  // False when there are none left, of GSIs or of descriptors: the vector does without.
  bool get_gsi(Place& place) {
    if (place.gsi != 0) return true;
    if (free_.empty()) return false;
    auto event = EventFd::create();
    if (!event) return false;
    place.event = *std::move(event);
    place.gsi = free_.back();
    free_.pop_back();
    return true;
  }

  void finish(const Change& change, bool done) {
    Place& place = *change.place;
    if (done && !place.attached) {
      place.attached = host_.attach(place.event->fd(), place.gsi).has_value();
    }
    std::lock_guard<std::mutex> lock(mutex_);
    // Changed again meanwhile: whoever did that has posted another call, or has yet to.
    place.ready = done && place.attached && place.wanted == change.message;
  }

  const Host host_;
  EventLoop& loop_;
  std::mutex mutex_;  // guards the rest
  std::vector<std::shared_ptr<Place>> places_;
  std::vector<std::uint32_t> free_;
  bool posted_ = false;  // one call is enough for all that changes before it runs
};

class MsiRoutes::Route final : public MsiRoute {
 public:
  explicit Route(std::shared_ptr<State> state) : state_(std::move(state)) { state_->add(place_); }
  ~Route() override { state_->remove(place_); }
  Route(const Route&) = delete;
  Route& operator=(const Route&) = delete;

  void send(const MsiMessage& message) override {
    if (message != message_) {
      state_->withdraw(*place_);
      message_ = message;
      times_ = 0;
    } else if (place_->ready.load(std::memory_order_acquire)) {
      return place_->event->signal();
    }
    state_->host().signal(message);
    if (times_ < kWorth && ++times_ == kWorth && can_be_routed(message)) {
      state_->want(*place_, message);
    }
  }

 private:
  const std::shared_ptr<State> state_;
  const std::shared_ptr<Place> place_ = std::make_shared<Place>();
  MsiMessage message_;
  std::uint32_t times_ = 0;  // that it was sent by the first way, as far as that matters
};

MsiRoutes::MsiRoutes(Host host, EventLoop& loop)
    : state_(std::make_shared<State>(std::move(host), loop)) {}

MsiRoutes::~MsiRoutes() = default;

std::unique_ptr<MsiRoute> MsiRoutes::make_route() {
  if (state_->host().gsis == 0) return nullptr;
  return std::make_unique<Route>(state_);
}

}  // namespace vmm

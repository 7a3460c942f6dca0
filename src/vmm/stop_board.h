// Where the first reason to stop is written, and where run() waits for it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <variant>

#include "base/error.h"
#include "vmm/stop_reason.h"

namespace vmm {

// The first post wins; later ones are dropped: a guest that writes a second exit code does not
// change the first. Any thread.
class StopBoard {
 public:
  using Stop = std::variant<StopInfo, Error>;

  // Who does other things than wait() between two looks.
  class Listener {
   public:
    // There is something to look at. Does not wait; the caller may hold locks of devices.
    virtual void end_turn() = 0;

   protected:
    ~Listener() = default;
  };
  // Borrowed, and called by whoever posts or has noticed something, maybe still after it was
  // replaced; null: nobody.
  void set_listener(Listener* listener) { listener_.store(listener); }

  // Whether this was the first.
  bool post(Stop stop);
  // Without a lock: has anything been posted? For the path of every exit.
  bool posted() const noexcept { return posted_.load(std::memory_order_relaxed); }
  // Waits until something is posted, notice() is called or `until` passes; what was posted stays on
  // the board.
  std::optional<Stop> wait(std::optional<std::chrono::steady_clock::time_point> until);
  // The same without waiting.
  std::optional<Stop> look();
  // There is something to look at that is no reason to stop: whoever waits, or else the next who
  // would, comes back with nothing. Does not wait.
  void notice();
  // Takes a posted kCancelled or kCondition away, so that the guest can run on.
  void clear_cancelled();
  // run() has told its caller what is on the board.
  void mark_told();
  // A posted kCondition.
  std::optional<Stop> condition() const;
  // What nobody has been told of yet.
  std::optional<Stop> untold() const;
  // As if only this had been posted.
  void reset(std::optional<Stop> stop);

 private:
  void wake();

  std::atomic<bool> posted_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Stop> stop_;
  bool told_ = false;
  bool noticed_ = false;
  std::atomic<Listener*> listener_{nullptr};
};

}  // namespace vmm

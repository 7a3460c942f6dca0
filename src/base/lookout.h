// Looking for another thread's answer before one sleeps.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "base/processors.h"

namespace vmm {

// For a wait whose answer usually comes sooner than a sleeper is woken. It looks only where the
// other thread has a processor of its own to answer on: with one for the whole process there is
// none, and when other programs keep them busy, looking takes away what the answer needs. So where
// it has looked in vain, it sleeps at once the next times, the more often the more that happens.
// Any thread.
class Lookout {
 public:
  // How many times at most it does not look after it has in vain.
  static constexpr unsigned kMostPatience = 64;

  // `time`: for how long it looks.
  explicit Lookout(std::chrono::microseconds time) : time_(time) {}

  // Whether `done` came true: not to be waited for any more. It is called at least once.
  template <typename Done>
  bool sees(Done done) {
    // Threads that count at once look once more or once less: nothing hangs on that.
    const unsigned skip = skip_.load(std::memory_order_relaxed);
    if (skip > 0) skip_.store(skip - 1, std::memory_order_relaxed);
    if (skip > 0 || !several_) return done();
    const unsigned patience = patience_.load(std::memory_order_relaxed);
    const bool seen = look_for(done);
    if (!seen) skip_.store(patience, std::memory_order_relaxed);
    const unsigned next = seen ? patience / 2 : patience * 2;
    patience_.store(std::clamp(next, 1U, kMostPatience), std::memory_order_relaxed);
    return seen;
  }

 private:
  template <typename Done>
  bool look_for(Done& done) const {
    const auto end = std::chrono::steady_clock::now() + time_;
    do {
      for (int i = 0; i < 16; ++i) {
        if (done()) return true;
        _mm_pause();
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  const std::chrono::microseconds time_;
  const bool several_ = has_several_processors();
  std::atomic<unsigned> skip_{0}, patience_{1};
};

}  // namespace vmm

// Times that are cheap to take: readings of the time stamp counter, turned into the clock's
// nanoseconds when somebody asks for them.
#pragma once

#include <x86intrin.h>

#include <cstdint>

namespace vmm {

// Immutable; any thread.
class TscTime {
 public:
  // A moment, to be given to Scale::time_of().
  static std::uint64_t now() noexcept { return __rdtsc(); }

  // What the counter is worth, as far as it is known when this is made.
  class Scale {
   public:
    // Nanoseconds of std::chrono::steady_clock. CPUs' counters may differ by a little.
    std::int64_t time_of(std::uint64_t tsc) const noexcept;

   private:
    friend class TscTime;
    std::uint64_t tsc_ = 0;
    std::int64_t time_ = 0;
    double speed_ = 0;  // nanoseconds a count
  };
  // The counter's speed by the time since this was made. Waits a millisecond when that was just
  // now.
  Scale scale() const;

 private:
  struct Moment {
    std::uint64_t tsc = 0;
    std::int64_t time = 0;
    static Moment now() noexcept;
  };
  const Moment start_ = Moment::now();
};

}  // namespace vmm

#include "base/tsc_time.h"

#include <chrono>
#include <thread>

namespace vmm {

TscTime::Moment TscTime::Moment::now() noexcept {
  return {__rdtsc(),
          std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1)};
}

std::int64_t TscTime::Scale::time_of(std::uint64_t tsc) const noexcept {
  // Signed: a counter may be behind that of the CPU where the start was taken.
  const auto counts = static_cast<double>(static_cast<std::int64_t>(tsc - tsc_));
  return time_ + static_cast<std::int64_t>(counts * speed_);
}

TscTime::Scale TscTime::scale() const {
  Moment here = Moment::now();
  while (here.time - start_.time < 1'000'000) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    here = Moment::now();
  }
  Scale scale;
  scale.tsc_ = start_.tsc;
  scale.time_ = start_.time;
  scale.speed_ =
      static_cast<double>(here.time - start_.time) / static_cast<double>(here.tsc - start_.tsc);
  return scale;
}

}  // namespace vmm

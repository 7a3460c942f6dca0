// What of a guest's frames may reach the user-mode network stack, so that what they cost the host
// has an end: each new flow takes a descriptor, and pieces of packets are kept until the rest
// comes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm {

// Judges copies of frames. A frame that may not pass is lost, as on any busy network: a guest that
// asks for too much hears of it through its own timeouts.
class FlowLimit {
 public:
  static constexpr std::chrono::seconds kWindow{30};  // for which pieces of packets are kept
  static constexpr std::size_t kMostFragments = 2048;

  explicit FlowLimit(std::size_t most_flows) : most_flows_(most_flows) {}

  // Whether the frame may pass while `flows` are open, at a time that does not go back.
  bool admit(std::span<const std::byte> frame, std::size_t flows, std::chrono::nanoseconds now);

 private:
  bool admit_fragment(std::chrono::nanoseconds now);

  const std::size_t most_flows_;
  std::chrono::nanoseconds window_start_{0};
  std::size_t fragments_ = 0;  // in this window
};

}  // namespace vmm

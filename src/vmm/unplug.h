// How a device is taken out of a running machine.
#pragma once

#include <chrono>

namespace vmm {

struct Unplug {
  // For how long the guest may think about it.
  std::chrono::milliseconds patience = std::chrono::seconds(20);
  // After that, take it away all the same, as if somebody pulled it out; else it stays.
  bool force = false;
};

}  // namespace vmm

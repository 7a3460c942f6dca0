// Remembers what a guest asked of the machine.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "devices/machine_events.h"

namespace vmm::test {

class RecordingEvents final : public MachineEvents {
 public:
  struct Event {
    GuestRequest request;
    std::uint32_t value;
    bool operator==(const Event&) const = default;
  };

  void request(GuestRequest request, std::uint32_t value) override {
    events_.push_back({request, value});
  }
  const std::vector<Event>& events() const { return events_; }
  std::vector<Event> take() { return std::exchange(events_, {}); }

 private:
  std::vector<Event> events_;
};

}  // namespace vmm::test

// A host's side of persistent memory whose flushes end when a test says so.
#pragma once

#include <optional>
#include <utility>

#include "base/event_fd.h"
#include "devices/pmem_backend.h"

namespace vmm::test {

class ManualPmem final : public PmemBackend {
 public:
  void start_flush() override {
    ++started;
    under_way = true;
  }
  std::optional<int> take_result() override { return std::exchange(result, std::nullopt); }
  void wait() override {
    if (under_way) end(0);
  }
  int event_fd() const noexcept override { return event_.fd(); }

  void end(int error) {
    under_way = false;
    result = error;
    event_.signal();
  }

  int started = 0;
  bool under_way = false;
  std::optional<int> result;

 private:
  EventFd event_ = EventFd::create().value();
};

}  // namespace vmm::test

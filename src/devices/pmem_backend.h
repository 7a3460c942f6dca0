// Where persistent memory of a guest is kept: the one interface between its device and the host.
#pragma once

#include <cstdint>
#include <optional>

namespace vmm {

// Externally synchronised: by the lock of the device that uses it. One flush is under way at most.
class PmemBackend {
 public:
  virtual ~PmemBackend() = default;  // nothing is under way any more: wait() comes first
  // Begins to make durable what was written before; does not wait.
  virtual void start_flush() = 0;
  // How the flush ended: 0, or an errno value; once. Nothing while it goes on, or when there is
  // none. Does not wait.
  virtual std::optional<int> take_result() = 0;
  // Waits until the flush, if there is one, has ended.
  virtual void wait() = 0;
  // A descriptor that is readable when take_result() has something to tell. Constant.
  virtual int event_fd() const noexcept = 0;
};

}  // namespace vmm

// Where a device's output bytes go.
#pragma once

#include <cstddef>
#include <span>

namespace vmm {

// Never blocks: what cannot be taken is dropped or buffered within a bound by the implementation,
// which counts it. Called with the device's lock held.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
  // False while the host side is behind: a device then shows its transmitter as busy, as real
  // hardware would, so that a patient guest loses nothing. True promises room for 16 bytes more: as
  // many as a guest may write to a UART's empty FIFO without looking again.
  virtual bool writable() const noexcept { return true; }
  // How many bytes the next write() takes for certain; 0 while not writable(). For devices whose
  // guest leaves its bytes where they are until there is room.
  virtual std::size_t room() const noexcept { return writable() ? 16 : 0; }
};

}  // namespace vmm

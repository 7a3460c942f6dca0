// The flight recorder's part for interrupts and requests: the machine's last events, which any
// thread writes down as they happen and any thread may read.
//
// Writing is an exchange of the slot's owner, a handful of plain stores and a reading of the time
// stamp counter: no lock, no system call, no memory that grows. Nobody waits: a writer whose slot
// is still being filled by one that is a whole ring behind lets its event go, and a reader leaves
// out what is being written.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/locked.h"
#include "base/tsc_time.h"
#include "devices/device_event.h"

namespace vmm {

class EventLog {
 public:
  // Who is told of each event at once, by the thread that it happens on, with locks held: must only
  // write it down.
  using Live = std::function<void(const DeviceEvent&)>;

  // Room for `size` events, a power of two; 0: nothing is kept. `live` may be empty.
  explicit EventLog(std::uint32_t size, Live live = {});
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  void line(std::uint32_t gsi, bool raised) noexcept {
    add({.kind = DeviceEventKind::kLine, .address = gsi, .value = raised});
  }
  void message(std::uint64_t address, std::uint32_t data) noexcept {
    add({.kind = DeviceEventKind::kMessage, .address = address, .value = data});
  }
  // `symbol`: what is at `rip`, for who is told at once; of use only while is_live().
  void interrupt(std::uint16_t cpu, std::uint8_t vector, std::uint64_t rip,
                 std::string_view symbol = {}) noexcept {
    add({.kind = DeviceEventKind::kInterrupt, .who = cpu, .address = rip, .value = vector}, symbol);
  }
  void nmi(std::uint16_t cpu, std::uint64_t rip, std::string_view symbol = {}) noexcept {
    add({.kind = DeviceEventKind::kNmi, .who = cpu, .address = rip}, symbol);
  }
  bool is_live() const noexcept { return live_ != nullptr; }

  // What request() and answer() know a device by. Devices of one name, which follow each other,
  // have the same; no more than 65536 are told apart.
  std::uint16_t number_of(std::string_view device);
  void request(std::uint16_t device, std::uint16_t queue, std::uint16_t head) noexcept {
    add({.kind = DeviceEventKind::kRequest, .who = device, .queue = queue, .head = head});
  }
  void answer(std::uint16_t device, std::uint16_t queue, std::uint16_t head,
              std::uint64_t written) noexcept {
    add({.kind = DeviceEventKind::kAnswer,
         .who = device,
         .queue = queue,
         .head = head,
         .value = written});
  }

  // The last events, the newest one last; at most `most` of them.
  std::vector<DeviceEvent> last(std::size_t most = SIZE_MAX) const;

 private:
  struct Event {
    DeviceEventKind kind{};
    std::uint16_t who = 0;  // a CPU, or a device's number
    std::uint16_t queue = 0;
    std::uint16_t head = 0;
    std::uint64_t address = 0;
    std::uint64_t value = 0;
  };
  struct Slot {
    // 0: free; odd: being written; else twice the event's number, plus two.
    std::atomic<std::uint64_t> owner{0};
    std::atomic<std::uint64_t> time{0};  // of the time stamp counter
    std::atomic<std::uint64_t> what{0};  // kind, who, queue, head
    std::atomic<std::uint64_t> address{0};
    std::atomic<std::uint64_t> value{0};
  };

  void add(const Event& event, std::string_view symbol = {}) noexcept {
    if (size_ != 0) keep(event);
    if (live_) [[unlikely]] {
      tell(event, symbol);
    }
  }
  void keep(const Event& event) noexcept;
  void tell(const Event& event, std::string_view symbol) noexcept;
  DeviceEvent described(const Event& event) const;

  const std::uint64_t size_;
  const Live live_;
  const TscTime clock_;
  std::unique_ptr<Slot[]> slots_;
  std::atomic<std::uint64_t> count_{0};  // numbers that have been given away
  Locked<std::vector<std::string>> devices_;
};

}  // namespace vmm

// What the flight recorder keeps beside exits: interrupts, and requests to devices
// (docs/observing.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vmm {

enum class DeviceEventKind : std::uint8_t {
  kLine,       // an input of the interrupt controllers: `address` is its GSI, `value` 1 when raised
  kMessage,    // a message-signalled interrupt: to `address`, data in `value`
  kInterrupt,  // a CPU is given the vector `value`, at RIP `address` (0: not known)
  kNmi,        // a CPU is given an NMI, likewise
  kRequest,    // a device takes a chain of descriptors, which begins with `head`, from a virtqueue
  kAnswer,     // and gives it back, `value` bytes of it written
};

// Value type.
struct DeviceEvent {
  std::uint64_t number = 0;  // of the machine's events, from 0; one may be missing
  std::int64_t time = 0;     // nanoseconds of std::chrono::steady_clock
  DeviceEventKind kind{};
  std::uint16_t cpu = 0;    // kInterrupt, kNmi
  std::uint16_t queue = 0;  // kRequest, kAnswer
  std::uint16_t head = 0;   // likewise; of a packed ring: the buffer's ID
  std::uint64_t address = 0;
  std::uint64_t value = 0;
  std::string device = {};  // kRequest, kAnswer: its name
  // What is at rip(), "name+0x10"; of events that are told at once, where the guest's names are
  // known.
  std::string symbol = {};

  bool is_interrupt() const noexcept { return kind < DeviceEventKind::kRequest; }
  // Where an interrupt met the CPU; 0: that is not known, or it is something else.
  std::uint64_t rip() const noexcept {
    const bool is_given = kind == DeviceEventKind::kInterrupt || kind == DeviceEventKind::kNmi;
    return is_given ? address : 0;
  }
};

// "line", "message", "interrupt", "nmi", "request", "answer".
std::string_view device_event_name(DeviceEventKind kind) noexcept;

// "irq gsi 4 raised", "irq message 0xfee01000 data 0x4021 vector 0x21", "vcpu1 irq vector 0x21 rip
// 0x1004 <idle+0x4>", "disk0 request queue 0 head 12", "disk0 answer queue 0 head 12 written 513".
std::string device_event_text(const DeviceEvent& event);

}  // namespace vmm

// A driver of a virtio console with two ports, over any transport and ring format: what Linux's
// does, one step at a time.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "devices/device.h"
#include "devices/virtio/console.h"
#include "memory/guest_memory.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::test {

// A message of the device's.
struct ConsoleHeard {
  std::uint32_t port = 0;
  virtio::ConsoleEvent event{};
  std::uint16_t value = 0;
  std::string tail = {};
  bool operator==(const ConsoleHeard&) const = default;
};

// Ports 0 and 1. Buffers for input and for messages are offered when a test says so.
template <typename Driver, typename Ring>
class ConsoleDriver : public Driver {
 public:
  static constexpr std::uint16_t kPlaces = 8;
  static constexpr std::uint32_t kBufferSize = 1024;

  ConsoleDriver(const GuestMemory& memory, Device& device) : Driver(device), memory_(memory) {}

  // Up to DRIVER_OK; with kMultiport, the queues of both ports.
  bool start(std::uint64_t features) {
    const std::uint16_t queues = (features & virtio::Console::kMultiport) != 0 ? 6 : 2;
    rings_.clear();
    buffers_ = {};
    if (!Driver::negotiate(Ring::kFeatures | features)) return false;
    for (std::uint16_t i = 0; i < queues; ++i) {
      rings_.emplace_back(memory_, Gpa(kRings + RingMemory::kSpan * i), kPlaces);
      for (std::uint64_t place = kPlaces; place-- > 0;) {
        buffers_[i].free.push_back(kBuffers + kBufferSize * (kPlaces * i + place));
      }
      if (!Driver::set_up_queue(i, rings_.back())) return false;
    }
    Driver::driver_ok();
    return true;
  }

  void say(virtio::ConsoleEvent event, std::uint32_t port, std::uint16_t value) {
    virtio::ConsoleMessage message;
    message.port = port;
    message.event = static_cast<std::uint16_t>(event);
    message.value = value;
    say_bytes(std::as_bytes(std::span(&message, 1)));
  }
  // Anything at all, at most kBufferSize bytes.
  void say_bytes(std::span<const std::byte> bytes) {
    Ring& ring = rings_[virtio::Console::kControlTransmit];
    while (ring.take_used()) {
    }
    store(kOutput, bytes);
    ring.add(std::vector<RingBuffer>{{kOutput, static_cast<std::uint32_t>(bytes.size()), false}});
    Driver::notify(virtio::Console::kControlTransmit);
  }
  // What the device has said.
  std::vector<ConsoleHeard> heard() {
    std::vector<ConsoleHeard> all;
    for (const std::string& text : take(virtio::Console::kControlReceive)) {
      virtio::ConsoleMessage message;
      if (text.size() < sizeof message) continue;
      std::memcpy(&message, text.data(), sizeof message);
      all.push_back({message.port, static_cast<virtio::ConsoleEvent>(std::uint16_t{message.event}),
                     message.value, text.substr(sizeof message)});
    }
    return all;
  }
  void offer_control_buffers(std::uint32_t size = kBufferSize) {
    offer(virtio::Console::kControlReceive, size);
  }

  void write(std::uint32_t port, std::string_view text) {
    const std::uint64_t at = kOutput + 0x1000 * (port + 1);
    store(at, std::as_bytes(std::span(text)));
    write_from(port, at, static_cast<std::uint32_t>(text.size()));
  }
  void write_from(std::uint32_t port, std::uint64_t address, std::uint32_t size) {
    rings_[transmit(port)].add(std::vector<RingBuffer>{{address, size, false}});
    Driver::notify(transmit(port));
  }
  // How many writes are done, since this was last asked.
  int written(std::uint32_t port) {
    int count = 0;
    while (rings_[transmit(port)].take_used()) ++count;
    return count;
  }
  // All that has come.
  std::string read(std::uint32_t port) {
    std::string all;
    for (const std::string& text : take(receive(port))) all += text;
    return all;
  }
  void offer_input_buffers(std::uint32_t port) { offer(receive(port), kBufferSize); }

  static constexpr std::uint16_t receive(std::uint32_t port) {
    return static_cast<std::uint16_t>(port == 0 ? 0 : 2 * port + 2);
  }
  static constexpr std::uint16_t transmit(std::uint32_t port) {
    return static_cast<std::uint16_t>(receive(port) + 1);
  }

 private:
  static constexpr std::uint64_t kRings = 0x4'0000, kBuffers = 0x18'0000, kOutput = 0x1a'0000;
  struct Buffers {
    std::vector<std::uint64_t> free;
    std::map<std::uint16_t, std::uint64_t> offered;  // by the chain's id
  };

  void store(std::uint64_t at, std::span<const std::byte> bytes) const {
    if (!memory_.write(Gpa(at), bytes)) throw std::logic_error("no RAM there");
  }
  void offer(std::uint16_t queue, std::uint32_t size) {
    Buffers& buffers = buffers_[queue];
    while (!buffers.free.empty()) {
      const std::uint64_t at = buffers.free.back();
      const auto id = rings_[queue].add(std::vector<RingBuffer>{{at, size, true}});
      if (!id) break;
      buffers.free.pop_back();
      buffers.offered[*id] = at;
    }
    Driver::notify(queue);
  }
  std::vector<std::string> take(std::uint16_t queue) {
    std::vector<std::string> all;
    Buffers& buffers = buffers_[queue];
    while (const auto used = rings_[queue].take_used()) {
      const std::uint64_t at = buffers.offered.at(used->id);
      std::string text(used->written, '\0');
      if (!memory_.read(Gpa(at), std::as_writable_bytes(std::span(text)))) break;
      buffers.offered.erase(used->id);
      buffers.free.push_back(at);
      all.push_back(std::move(text));
    }
    return all;
  }

  const GuestMemory& memory_;
  std::vector<Ring> rings_;
  std::array<Buffers, 6> buffers_;
};

}  // namespace vmm::test

// Remembers the message-signalled interrupts that were sent.
#pragma once

#include <cstdint>
#include <ostream>
#include <utility>
#include <vector>

#include "devices/irq.h"

namespace vmm::test {

struct Message {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  bool operator==(const Message&) const = default;
};
inline void PrintTo(const Message& m, std::ostream* out) {
  *out << std::hex << m.address << ":" << m.data << std::dec;
}

class RecordingMsiSink final : public MsiSink {
 public:
  void send(std::uint64_t address, std::uint32_t data) override { all_.push_back({address, data}); }
  // Since the last call.
  std::vector<Message> take() { return std::exchange(all_, {}); }

 private:
  std::vector<Message> all_;
};

}  // namespace vmm::test

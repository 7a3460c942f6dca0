// A way of its own for the messages of one vector.
#pragma once

#include <cstdint>
#include <memory>

namespace vmm {

struct MsiMessage {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// Sends as MsiSink::send() does, and may be better at a message that comes again and again. One
// thread at a time: with the lock of the device that has it.
class MsiRoute {
 public:
  virtual ~MsiRoute() = default;
  virtual void send(const MsiMessage& message) = 0;
};

// Any thread.
class MsiRouter {
 public:
  virtual ~MsiRouter() = default;
  // A route for one more vector; it may outlive this. nullptr when there is no better way than
  // MsiSink::send().
  virtual std::unique_ptr<MsiRoute> make_route() = 0;
};

}  // namespace vmm

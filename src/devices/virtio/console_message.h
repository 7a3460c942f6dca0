// What a console device and its driver tell each other beside the ports' bytes: VIRTIO 1.2,
// sections 5.3.4 and 5.3.6.2.
#pragma once

#include <cstdint>

#include "base/le.h"

namespace vmm::virtio {

enum class ConsoleEvent : std::uint16_t {
  kDeviceReady = 0,  // from the driver: 1, it has control queues; 0, it has given up
  kPortAdd = 1,
  kPortRemove = 2,
  kPortReady = 3,  // from the driver: 1, it knows the port; 0, it cannot have it
  kConsolePort = 4,
  kResize = 5,    // a ConsoleResize follows
  kPortOpen = 6,  // both ways: somebody listens (1), or not any more (0)
  kPortName = 7,  // the name follows, without a zero at its end
};

struct ConsoleMessage {
  Le32 port = 0;
  Le16 event = 0;
  Le16 value = 0;
};
static_assert(sizeof(ConsoleMessage) == 8);

// The fields' order is the specification's. Linux's driver has expected either order, depending on
// its version; the configuration space is read alike by all.
struct ConsoleResize {
  Le16 columns = 0;
  Le16 rows = 0;
};
static_assert(sizeof(ConsoleResize) == 4);

// The configuration space.
struct ConsoleConfig {
  Le16 columns = 0;
  Le16 rows = 0;
  Le32 ports = 0;
  Le32 emergency_write = 0;
};
static_assert(sizeof(ConsoleConfig) == 12);

}  // namespace vmm::virtio

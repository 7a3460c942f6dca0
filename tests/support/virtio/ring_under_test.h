// A queue in RAM with its driver, over both ring formats.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "devices/virtio/queue.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::test {

template <typename Driver, std::uint64_t kExtraFeatures = 0>
struct RingUnderTest {
  static constexpr std::uint16_t kSize = 8;
  static constexpr std::uint64_t kFeatures =
      Driver::kFeatures | virtio::kFeatureIndirectDesc | kExtraFeatures;
  static constexpr bool kEventIdx = (kFeatures & virtio::kFeatureEventIdx) != 0;
  static constexpr std::uint64_t kData = 0x10'0000;

  GuestMemory memory = make_ram();
  std::vector<std::string> broken;
  virtio::Queue queue{memory, kSize, [this](std::string_view why) { broken.emplace_back(why); }};
  Driver driver{memory, Gpa(0x8'0000), kSize, kEventIdx};
  virtio::Chain chain;

  RingUnderTest() { start(); }
  bool start() {
    queue.set_size(kSize);
    queue.set_descriptors(driver.descriptors());
    queue.set_driver(driver.driver_area());
    queue.set_device(driver.device_area());
    return queue.enable(kFeatures);
  }
  // A request of one readable and one writable page.
  std::uint16_t add_plain(bool indirect = false) {
    const std::vector<RingBuffer> buffers{{kData, 0x100, false}, {kData + 0x1000, 0x200, true}};
    return driver.add(buffers, indirect).value();
  }
};

}  // namespace vmm::test

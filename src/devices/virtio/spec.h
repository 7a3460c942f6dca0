// Numbers of VIRTIO 1.2 (OASIS, 1 July 2022) that every device and both transports share.
#pragma once

#include <cstdint>

namespace vmm::virtio {

// Section 5: device types.
enum class DeviceType : std::uint32_t {
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kEntropy = 4,
  kBalloon = 5,
  kVsock = 19,
  kMem = 24,
  kFs = 26,
  kPmem = 27,
};

// Section 2.1: the device status field.
inline constexpr std::uint8_t kAcknowledge = 0x01;
inline constexpr std::uint8_t kDriver = 0x02;
inline constexpr std::uint8_t kDriverOk = 0x04;
inline constexpr std::uint8_t kFeaturesOk = 0x08;
inline constexpr std::uint8_t kNeedsReset = 0x40;
inline constexpr std::uint8_t kFailed = 0x80;

// Section 6: feature bits that do not belong to one type of device.
inline constexpr std::uint64_t kFeatureIndirectDesc = 1ULL << 28;
inline constexpr std::uint64_t kFeatureEventIdx = 1ULL << 29;
inline constexpr std::uint64_t kFeatureVersion1 = 1ULL << 32;
inline constexpr std::uint64_t kFeatureAccessPlatform = 1ULL << 33;
inline constexpr std::uint64_t kFeatureRingPacked = 1ULL << 34;
inline constexpr std::uint64_t kFeatureInOrder = 1ULL << 35;
inline constexpr std::uint64_t kFeatureNotificationData = 1ULL << 38;
inline constexpr std::uint64_t kFeatureRingReset = 1ULL << 40;

// Section 2.7.5 and 2.8.13: a descriptor of a ring or of an indirect table.
inline constexpr std::uint16_t kDescNext = 1;
inline constexpr std::uint16_t kDescWrite = 2;
inline constexpr std::uint16_t kDescIndirect = 4;
inline constexpr std::uint64_t kDescSize = 16;

// Section 2.7.6 and 2.7.8: "do not notify me", in a split ring's flags.
inline constexpr std::uint16_t kAvailNoInterrupt = 1;
inline constexpr std::uint16_t kUsedNoNotify = 1;

// Section 2.8.13: who may look at a descriptor of a packed ring.
inline constexpr std::uint16_t kDescAvail = 1 << 7;
inline constexpr std::uint16_t kDescUsed = 1 << 15;

// Section 2.8.14: RING_EVENT_FLAGS of a packed ring.
inline constexpr std::uint16_t kEventsEnable = 0;
inline constexpr std::uint16_t kEventsDisable = 1;
inline constexpr std::uint16_t kEventsDesc = 2;

// Section 2.6: no queue has more entries.
inline constexpr std::uint16_t kMaxQueueSize = 32768;

}  // namespace vmm::virtio

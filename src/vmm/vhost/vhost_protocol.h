// Numbers and messages of the vhost-user protocol, as QEMU's documentation has it (docs/interop/
// vhost-user.rst): a front-end, which has the guest, talks to a back-end, which serves virtqueues,
// over a Unix socket. All integers are those of the host; both ends run on one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace vmm::vhost {

// Front-end to back-end.
enum class Request : std::uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSetBackendReqFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
};

// Back-end to front-end, over a second socket.
enum class BackendRequest : std::uint32_t { kConfigChange = 2 };

// In front of every message.
struct Header {
  static constexpr std::uint32_t kVersion = 1;
  static constexpr std::uint32_t kVersionMask = 3;
  static constexpr std::uint32_t kReply = 4;
  static constexpr std::uint32_t kNeedReply = 8;

  std::uint32_t request = 0;
  std::uint32_t flags = kVersion;
  std::uint32_t size = 0;  // of what follows
};
static_assert(sizeof(Header) == 12);

// Beside the virtio features: there are protocol features.
inline constexpr std::uint64_t kFeatureProtocol = std::uint64_t{1} << 30;

// Protocol features.
inline constexpr std::uint64_t kProtocolMultiQueue = std::uint64_t{1} << 0;
inline constexpr std::uint64_t kProtocolReplyAck = std::uint64_t{1} << 3;
inline constexpr std::uint64_t kProtocolBackendReq = std::uint64_t{1} << 5;
inline constexpr std::uint64_t kProtocolConfig = std::uint64_t{1} << 9;

// Payloads.

struct VringState {
  std::uint32_t index = 0;
  std::uint32_t value = 0;
};

struct VringAddress {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;
  std::uint64_t descriptors = 0;  // as the front-end's addresses: MemoryRegion::user_address
  std::uint64_t used = 0;
  std::uint64_t available = 0;
  std::uint64_t log = 0;
};
static_assert(sizeof(VringAddress) == 40);

struct MemoryRegion {
  std::uint64_t guest_address = 0;
  std::uint64_t size = 0;
  std::uint64_t user_address = 0;  // what the region is called in VringAddress
  std::uint64_t mmap_offset = 0;   // into the descriptor that comes with it
};
inline constexpr std::size_t kMostRegions = 8;  // what every back-end takes

struct MemoryTable {
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
  std::array<MemoryRegion, kMostRegions> regions{};
};
static_assert(sizeof(MemoryTable) == 8 + 32 * kMostRegions);

struct ConfigHeader {
  std::uint32_t offset = 0;
  std::uint32_t size = 0;
  std::uint32_t flags = 0;  // 0: what a driver may write
};
inline constexpr std::uint32_t kMostConfig = 256;

}  // namespace vmm::vhost

// Register accesses on a bare device, as the bus makes them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/le.h"
#include "devices/device.h"

namespace vmm::test {

inline std::uint64_t read_device(Device& device, std::uint64_t offset, std::size_t width) {
  std::array<std::byte, 8> bytes;
  bytes.fill(std::byte{0xff});
  const auto part = std::span(bytes).first(width);
  device.read({.offset = offset, .address = offset, .vcpu = VcpuId{0}}, part);
  return load_le(part);
}
inline std::uint8_t read8(Device& device, std::uint64_t offset) {
  return static_cast<std::uint8_t>(read_device(device, offset, 1));
}
inline std::uint16_t read16(Device& device, std::uint64_t offset) {
  return static_cast<std::uint16_t>(read_device(device, offset, 2));
}
inline std::uint32_t read32(Device& device, std::uint64_t offset) {
  return static_cast<std::uint32_t>(read_device(device, offset, 4));
}

inline void write_device(Device& device, std::uint64_t offset, std::size_t width,
                         std::uint64_t value) {
  std::array<std::byte, 8> bytes{};
  const auto part = std::span(bytes).first(width);
  store_le(part, value);
  device.write({.offset = offset, .address = offset, .vcpu = VcpuId{0}}, part);
}
inline void write8(Device& device, std::uint64_t offset, std::uint8_t value) {
  write_device(device, offset, 1, value);
}
inline void write16(Device& device, std::uint64_t offset, std::uint16_t value) {
  write_device(device, offset, 2, value);
}
inline void write32(Device& device, std::uint64_t offset, std::uint32_t value) {
  write_device(device, offset, 4, value);
}

}  // namespace vmm::test

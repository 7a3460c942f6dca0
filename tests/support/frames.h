// Ethernet frames for tests: built and taken apart by hand, so that nothing under test is believed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "devices/mac_address.h"

namespace vmm::test {

using Frame = std::vector<std::byte>;

inline constexpr MacAddress kBroadcast{{255, 255, 255, 255, 255, 255}};

inline void append(Frame& frame, std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) frame.push_back(static_cast<std::byte>(byte));
}
inline void append16(Frame& frame, unsigned value) { append(frame, {value >> 8, value & 0xff}); }
inline void append32(Frame& frame, std::uint32_t value) {
  append16(frame, value >> 16);
  append16(frame, value & 0xffff);
}
inline void append(Frame& frame, std::span<const std::byte> bytes) {
  frame.insert(frame.end(), bytes.begin(), bytes.end());
}
inline void append(Frame& frame, std::string_view text) {
  append(frame, std::as_bytes(std::span(text)));
}

inline unsigned get16(std::span<const std::byte> frame, std::size_t offset) {
  return std::to_integer<unsigned>(frame[offset]) << 8 |
         std::to_integer<unsigned>(frame[offset + 1]);
}
inline std::uint32_t get32(std::span<const std::byte> frame, std::size_t offset) {
  return get16(frame, offset) << 16 | get16(frame, offset + 2);
}

// RFC 1071, over bytes from `sum` on.
inline unsigned internet_sum(std::span<const std::byte> bytes, unsigned sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<unsigned>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

inline Frame ethernet(const MacAddress& to, const MacAddress& from, unsigned type,
                      std::span<const std::byte> payload = {}) {
  Frame frame;
  for (const std::uint8_t byte : to.bytes) append(frame, {byte});
  for (const std::uint8_t byte : from.bytes) append(frame, {byte});
  append16(frame, type);
  append(frame, payload);
  return frame;
}

struct Address {
  MacAddress mac;
  std::uint32_t ip = 0;
  std::uint16_t port = 0;
};

inline Frame ipv4(const Address& from, const Address& to, unsigned protocol,
                  std::span<const std::byte> payload, unsigned fragment = 0) {
  Frame packet;
  append(packet, {0x45, 0});
  append16(packet, static_cast<unsigned>(20 + payload.size()));
  append16(packet, 1);
  append16(packet, fragment);
  append(packet, {64, protocol, 0, 0});
  append32(packet, from.ip);
  append32(packet, to.ip);
  const unsigned sum = ~internet_sum(packet) & 0xffff;
  packet[10] = static_cast<std::byte>(sum >> 8);
  packet[11] = static_cast<std::byte>(sum & 0xff);
  append(packet, payload);
  return ethernet(to.mac, from.mac, 0x0800, packet);
}

// Without a checksum, which UDP over IPv4 allows.
inline Frame udp(const Address& from, const Address& to, std::span<const std::byte> payload) {
  Frame datagram;
  append16(datagram, from.port);
  append16(datagram, to.port);
  append16(datagram, static_cast<unsigned>(8 + payload.size()));
  append16(datagram, 0);
  append(datagram, payload);
  return ipv4(from, to, 17, datagram);
}
inline Frame udp(const Address& from, const Address& to, std::string_view text) {
  return udp(from, to, std::as_bytes(std::span(text)));
}

// A TCP segment without data.
inline Frame tcp(const Address& from, const Address& to, unsigned flags, std::uint32_t sequence = 1,
                 std::uint32_t acknowledge = 0) {
  Frame segment;
  append16(segment, from.port);
  append16(segment, to.port);
  append32(segment, sequence);
  append32(segment, acknowledge);
  append(segment, {5 << 4, flags});
  append16(segment, 0xffff);  // window
  append32(segment, 0);       // checksum, urgent pointer
  Frame pseudo;
  append32(pseudo, from.ip);
  append32(pseudo, to.ip);
  append16(pseudo, 6);
  append16(pseudo, static_cast<unsigned>(segment.size()));
  const unsigned sum = ~internet_sum(segment, internet_sum(pseudo)) & 0xffff;
  segment[16] = static_cast<std::byte>(sum >> 8);
  segment[17] = static_cast<std::byte>(sum & 0xff);
  return ipv4(from, to, 6, segment);
}

// Who has `wanted`? And the answer to that question.
inline Frame arp(const Address& from, unsigned operation, const MacAddress& to,
                 std::uint32_t wanted) {
  Frame packet;
  append16(packet, 1);
  append16(packet, 0x0800);
  append(packet, {6, 4});
  append16(packet, operation);
  for (const std::uint8_t byte : from.mac.bytes) append(packet, {byte});
  append32(packet, from.ip);
  for (const std::uint8_t byte : to.bytes) append(packet, {byte});
  append32(packet, wanted);
  return ethernet(operation == 1 ? kBroadcast : to, from.mac, 0x0806, packet);
}

// What a frame is, by the fields at their fixed places.
inline bool is_type(std::span<const std::byte> frame, unsigned type) {
  return frame.size() >= 14 && get16(frame, 12) == type;
}
inline bool is_ipv4(std::span<const std::byte> frame, unsigned protocol) {
  return is_type(frame, 0x0800) && frame.size() >= 34 &&
         std::to_integer<unsigned>(frame[23]) == protocol;
}
inline std::string_view udp_text(std::span<const std::byte> frame) {
  const std::size_t size = get16(frame, 38) - 8;
  return {reinterpret_cast<const char*>(frame.data()) + 42, size};
}

}  // namespace vmm::test

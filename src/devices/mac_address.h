// The address of a network interface: EUI-48 of IEEE 802.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm {

// Value type. In the order in which the bytes are sent.
struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  // "52:54:00:12:34:56", with ':' or '-'. Errors: kBadConfig.
  static Result<MacAddress> parse(std::string_view text);
  // A locally administered address that is always the same for the same text, and another one for
  // another text as far as 46 bits can tell.
  static MacAddress derive(std::string_view text);

  // To many stations: no interface may have such an address.
  bool is_group() const noexcept { return (bytes[0] & 1) != 0; }
  bool is_broadcast() const noexcept { return *this == MacAddress{{255, 255, 255, 255, 255, 255}}; }
  bool is_zero() const noexcept { return *this == MacAddress{}; }
  std::string text() const;

  bool operator==(const MacAddress&) const = default;
  auto operator<=>(const MacAddress&) const = default;
  static void fields(auto&& f) { f("bytes", &MacAddress::bytes); }
};

}  // namespace vmm

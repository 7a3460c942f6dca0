#include "devices/mac_address.h"

#include <fmt/format.h>

#include <charconv>

namespace vmm {

Result<MacAddress> MacAddress::parse(std::string_view text) {
  constexpr std::size_t kLength = 17;  // six pairs of digits, five separators
  const auto wrong = [&] {
    return fail(ErrorCode::kBadConfig,
                "'{}' is no MAC address: six pairs of hexadecimal digits, as in 52:54:00:12:34:56",
                text);
  };
  if (text.size() != kLength) return wrong();
  const char separator = text[2];
  if (separator != ':' && separator != '-') return wrong();
  MacAddress address;
  for (std::size_t i = 0; i < address.bytes.size(); ++i) {
    const char* const digits = text.data() + 3 * i;
    if (i != 0 && digits[-1] != separator) return wrong();
    const auto [end, error] = std::from_chars(digits, digits + 2, address.bytes[i], 16);
    if (error != std::errc{} || end != digits + 2) return wrong();
  }
  return address;
}

MacAddress MacAddress::derive(std::string_view text) {
  // FNV-1a, then its finest bits spread over all (the finaliser of SplitMix64).
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325;
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100'0000'01b3;
  hash = (hash ^ (hash >> 30)) * 0xbf58'476d'1ce4'e5b9;
  hash = (hash ^ (hash >> 27)) * 0x94d0'49bb'1331'11eb;
  hash ^= hash >> 31;
  MacAddress address;
  for (std::size_t i = 0; i < address.bytes.size(); ++i) {
    address.bytes[i] = static_cast<std::uint8_t>(hash >> (8 * i));
  }
  address.bytes[0] = static_cast<std::uint8_t>((address.bytes[0] & 0xfc) | 0x02);
  return address;
}

std::string MacAddress::text() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2],
                     bytes[3], bytes[4], bytes[5]);
}

}  // namespace vmm

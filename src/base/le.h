// Little-endian integers as they lie in files and in guest memory: no alignment, no padding, no
// packed casts.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>

namespace vmm {

// A wire integer. Converts both ways implicitly; trivially copyable; alignment 1, so structures of
// these have the layout that the specification draws.
template <std::unsigned_integral T>
class Le {
 public:
  constexpr Le() noexcept = default;
  constexpr Le(
      T value) noexcept {  // NOLINT(google-explicit-constructor): a wire integer is its number
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bytes_[i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
  }
  constexpr operator T() const noexcept {  // NOLINT(google-explicit-constructor)
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(bytes_[i]) << (8 * i)));
    }
    return value;
  }

 private:
  std::array<std::uint8_t, sizeof(T)> bytes_{};
};

using Le16 = Le<std::uint16_t>;
using Le32 = Le<std::uint32_t>;
using Le64 = Le<std::uint64_t>;

static_assert(sizeof(Le64) == 8 && alignof(Le64) == 1);

namespace detail {
// An integer of the host's, at any alignment.
template <std::unsigned_integral T>
T load_native(const void* from) noexcept {
  T value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <std::unsigned_integral T>
void store_native(void* to, T value) noexcept {
  std::memcpy(to, &value, sizeof value);
}
}  // namespace detail

// The little-endian value of up to eight bytes, and back. Device registers use these at the bus
// boundary, so the widths that guests use are one load.
template <typename Bytes>
[[nodiscard]] constexpr std::uint64_t load_le(const Bytes& bytes) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    if (!std::is_constant_evaluated()) {
      switch (std::size(bytes)) {
        case 1:
          return detail::load_native<std::uint8_t>(std::data(bytes));
        case 2:
          return detail::load_native<std::uint16_t>(std::data(bytes));
        case 4:
          return detail::load_native<std::uint32_t>(std::data(bytes));
        case 8:
          return detail::load_native<std::uint64_t>(std::data(bytes));
        default:
          break;
      }
    }
  }
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size() && i < 8; ++i) {
    value |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

template <typename Bytes>
constexpr void store_le(Bytes&& bytes, std::uint64_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    if (!std::is_constant_evaluated()) {
      switch (std::size(bytes)) {
        case 1:
          return detail::store_native(std::data(bytes), static_cast<std::uint8_t>(value));
        case 2:
          return detail::store_native(std::data(bytes), static_cast<std::uint16_t>(value));
        case 4:
          return detail::store_native(std::data(bytes), static_cast<std::uint32_t>(value));
        case 8:
          return detail::store_native(std::data(bytes), value);
        default:
          break;
      }
    }
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = i < 8 ? static_cast<std::byte>(value >> (8 * i)) : std::byte{0};
  }
}

}  // namespace vmm

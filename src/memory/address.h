// Addresses as types: guest-physical and guest-virtual addresses do not convert to each other or to
// pointers.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>

#include "base/checked.h"

namespace vmm {

namespace detail {

// As a hexadecimal number. Not fmt::format_to() where the formatters are: that would compile fmt's
// whole engine in every file that includes this.
std::string address_text(std::uint64_t value);

// An address of one space. Ordering and equality as numbers; no implicit conversion in or out.
template <typename Tag>
struct Address {
  std::uint64_t value = 0;

  constexpr Address() noexcept = default;
  constexpr explicit Address(std::uint64_t v) noexcept : value(v) {}

  constexpr auto operator<=>(const Address&) const noexcept = default;

  // The address `offset` bytes further, or nothing when that is past 2^64.
  [[nodiscard]] constexpr std::optional<Address> plus(std::uint64_t offset) const noexcept {
    const auto sum = checked_add(value, offset);
    if (!sum) return std::nullopt;
    return Address(*sum);
  }
  // Bytes from `base` up to this address; the caller knows that base <= *this.
  [[nodiscard]] constexpr std::uint64_t offset_from(Address base) const noexcept {
    return value - base.value;
  }
  [[nodiscard]] constexpr Address align_down(std::uint64_t alignment) const noexcept {
    return Address(vmm::align_down(value, alignment));
  }
};

}  // namespace detail

using Gpa = detail::Address<struct GpaTag>;  // guest-physical
using Gva = detail::Address<struct GvaTag>;  // guest-virtual (linear)

// A half-open range of guest-physical addresses that cannot wrap: base + size <= 2^64 - 1.
class GpaRange {
 public:
  constexpr GpaRange() noexcept = default;
  // Nothing when base + size overflows.
  static constexpr std::optional<GpaRange> create(Gpa base, std::uint64_t size) noexcept {
    if (!base.plus(size)) return std::nullopt;
    return GpaRange(base, size);
  }

  constexpr Gpa base() const noexcept { return base_; }
  constexpr std::uint64_t size() const noexcept { return size_; }
  constexpr Gpa end() const noexcept { return Gpa(base_.value + size_); }  // one past the last byte
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr bool contains(Gpa address) const noexcept {
    return address >= base_ && address < end();
  }
  constexpr bool contains(const GpaRange& other) const noexcept {
    return other.base_ >= base_ && other.end() <= end();
  }
  constexpr bool overlaps(const GpaRange& other) const noexcept {
    return base_ < other.end() && other.base_ < end();
  }
  constexpr bool operator==(const GpaRange&) const noexcept = default;

 private:
  constexpr GpaRange(Gpa base, std::uint64_t size) noexcept : base_(base), size_(size) {}
  Gpa base_;
  std::uint64_t size_ = 0;
};

// "[base, end)"
std::string to_string(const GpaRange& range);

}  // namespace vmm

template <typename Tag>
struct fmt::formatter<vmm::detail::Address<Tag>> {
  constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
  template <typename Context>
  auto format(const vmm::detail::Address<Tag>& a, Context& ctx) const {
    const std::string text = vmm::detail::address_text(a.value);
    return std::copy(text.begin(), text.end(), ctx.out());
  }
};

template <>
struct fmt::formatter<vmm::GpaRange> {
  constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
  template <typename Context>
  auto format(const vmm::GpaRange& r, Context& ctx) const {
    const std::string text = vmm::to_string(r);
    return std::copy(text.begin(), text.end(), ctx.out());
  }
};

// The page of a local APIC's registers as KVM_GET_LAPIC and KVM_SET_LAPIC have it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/le.h"

namespace vmm::kvm {

// Registers by their number (Lapic::Register; SDM volume 3, table 11-1): 32 bits each, 16 bytes
// apart. The ID is in the upper 8 bits of its own, in x2APIC mode, too, since we do not enable
// KVM_X2APIC_API_USE_32BIT_IDS.
class LapicRegisterPage {
 public:
  static constexpr std::size_t kSize = 1024;

  LapicRegisterPage() : bytes_(kSize) {}
  // `bytes` are kSize.
  explicit LapicRegisterPage(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  std::uint32_t get(std::uint32_t number) const {
    Le32 value;
    std::memcpy(&value, bytes_.data() + std::size_t{number} * 16, sizeof value);
    return value;
  }
  void set(std::uint32_t number, std::uint32_t value) {
    const Le32 stored(value);
    std::memcpy(bytes_.data() + std::size_t{number} * 16, &stored, sizeof stored);
  }
  // Neighbours: what has more than 32 bits, and the local vector table.
  void get_many(std::uint32_t first, std::span<std::uint32_t> values) const {
    for (std::uint32_t& value : values) value = get(first++);
  }
  void set_many(std::uint32_t first, std::span<const std::uint32_t> values) {
    for (const std::uint32_t value : values) set(first++, value);
  }

  std::span<std::byte> bytes() noexcept { return bytes_; }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace vmm::kvm

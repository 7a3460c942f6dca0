// A fuzzer's input read as a program: a byte for each choice; what is missing is zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm::fuzz {

class Program {
 public:
  Program(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}
  bool ended() const { return bytes_.empty(); }
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  std::uint16_t word() { return static_cast<std::uint16_t>(byte() | byte() << 8); }
  // Mostly small, sometimes with its bits high up.
  std::uint32_t wide() {
    const std::uint32_t value = word();
    return (value & 0x8000) != 0 ? value << (byte() % 17) : value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace vmm::fuzz

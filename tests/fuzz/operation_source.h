// Where operations and their operands come from: bytes that somebody made up, or chance.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <span>

namespace vmm::test {

class OperationSource {
 public:
  virtual ~OperationSource() = default;
  virtual bool empty() const = 0;
  // What to do next, of which bit 7 says "write" and bits 3 to 0 what.
  virtual std::uint8_t operation() = 0;
  virtual std::uint8_t u8() = 0;
  // That many bytes, little-endian.
  virtual std::uint64_t number(std::size_t bytes) = 0;
};

// Read from the front; past the end all is zero.
class ByteOperations final : public OperationSource {
 public:
  explicit ByteOperations(std::span<const std::uint8_t> rest) : rest_(rest) {}
  bool empty() const override { return rest_.empty(); }
  std::uint8_t operation() override { return u8(); }
  std::uint8_t u8() override {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint64_t number(std::size_t bytes) override {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= static_cast<std::uint64_t>(u8()) << (8 * i);
    return value;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// Endless. Most operations are accesses; what makes a device forget comes once in some thousand.
class RandomOperations final : public OperationSource {
 public:
  static constexpr std::uint8_t kFirstRare = 12;  // 12, 13 and 15

  explicit RandomOperations(std::uint32_t seed) : random_(seed) {}
  bool empty() const override { return false; }
  std::uint8_t operation() override {
    const std::uint32_t bits = next();
    auto what = static_cast<std::uint8_t>(bits & 0xf);
    const bool rare = what >= kFirstRare && what != 14;
    if (rare && (bits >> 8) % 512 != 0) what = 14;
    return static_cast<std::uint8_t>((bits >> 24 & 0xf0) | what);
  }
  std::uint8_t u8() override { return static_cast<std::uint8_t>(next()); }
  // Numbers as drivers write them: small ones, single bits, bounds, and any.
  std::uint64_t number(std::size_t bytes) override {
    const std::uint64_t any = std::uint64_t{next()} << 32 | next();
    const std::uint64_t mask = bytes >= 8 ? ~0ULL : (1ULL << (8 * bytes)) - 1;
    switch (next() % 8) {
      case 0:
      case 1:
      case 2:
        return any & mask & 0xff;
      case 3:
        return 1ULL << (any % (8 * std::clamp<std::size_t>(bytes, 1, 8)));
      case 4:
        return any % 4 == 0 ? mask : any & mask & 0xffff;
      default:
        return any & mask;
    }
  }

 private:
  std::uint32_t next() { return static_cast<std::uint32_t>(random_()); }
  std::mt19937 random_;
};

}  // namespace vmm::test

// A sink that keeps what a guest wrote, for tests and for programs that read a guest's console.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>

#include "devices/sink.h"

namespace vmm {

// Any thread: a test may look while the guest writes.
class CaptureSink final : public ByteSink {
 public:
  static constexpr std::size_t kDefaultLimit = std::size_t{16} << 20;

  // Keeps the first `limit` bytes; the rest is dropped and counted.
  explicit CaptureSink(std::size_t limit = kDefaultLimit) : limit_(limit) {}

  void write(std::span<const std::byte> bytes) override;
  // It drops what goes beyond its limit rather than keep the guest waiting.
  std::size_t room() const noexcept override { return kDefaultLimit; }

  // Everything kept so far.
  std::string text() const;
  std::size_t size() const;
  std::uint64_t dropped() const;
  void clear();

 private:
  const std::size_t limit_;
  mutable std::mutex mutex_;  // guards what follows
  std::string text_;
  std::uint64_t dropped_ = 0;
};

}  // namespace vmm

// Looks at what a guest prints, for the one thing that no other channel tells: that its kernel has
// panicked. Keeps the end of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "devices/sink.h"

namespace vmm {

// Passes bytes on to another sink and searches them on the way, across writes. Called with the
// device's lock held; panicked() from any thread.
class ConsoleWatch final : public ByteSink {
 public:
  // `next` is borrowed; nullptr drops the bytes.
  explicit ConsoleWatch(ByteSink* next) : next_(next) {}

  void write(std::span<const std::byte> bytes) override;
  bool writable() const noexcept override { return next_ == nullptr || next_->writable(); }
  std::size_t room() const noexcept override {
    return next_ == nullptr ? kUnlimited : next_->room();
  }

  // With the device's lock held: who else gets the bytes, from now on; borrowed, nullptr ends that.
  void set_tap(ByteSink* tap) noexcept { tap_ = tap; }

  // A panic message has gone by. Only a hint: user space can print the same words, so it decides
  // nothing but how an end that comes anyway is called.
  bool panicked() const noexcept { return panicked_.load(std::memory_order_relaxed); }
  // With the device's lock held: the last kTail bytes.
  static constexpr std::size_t kTail = 2048;
  std::string tail() const { return tail_.substr(tail_.size() - std::min(tail_.size(), kTail)); }
  // With the device's lock held: as if nothing, or a panic message, had gone by.
  void restore(bool panicked) noexcept {
    matched_ = 0;
    tail_.clear();
    panicked_.store(panicked, std::memory_order_relaxed);
  }

 private:
  static constexpr std::size_t kUnlimited = std::size_t{1} << 20;  // what drops all takes all
  ByteSink* next_;
  ByteSink* tap_ = nullptr;
  std::string tail_;         // at most twice as much, so that it is cut now and then only
  std::size_t matched_ = 0;  // bytes of the marker seen so far
  std::atomic<bool> panicked_{false};
};

}  // namespace vmm

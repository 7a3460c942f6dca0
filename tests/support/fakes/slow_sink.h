// A sink whose host side can fall behind.
#pragma once

#include <span>
#include <string>

#include "devices/sink.h"

namespace vmm::test {

class SlowSink final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override {
    for (const std::byte b : bytes) text_.push_back(std::to_integer<char>(b));
  }
  bool writable() const noexcept override { return writable_; }

  void set_writable(bool writable) { writable_ = writable; }
  const std::string& text() const { return text_; }

 private:
  bool writable_ = true;
  std::string text_;
};

}  // namespace vmm::test

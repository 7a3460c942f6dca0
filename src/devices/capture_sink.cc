#include "devices/capture_sink.h"

#include <algorithm>

namespace vmm {

void CaptureSink::write(std::span<const std::byte> bytes) {
  std::lock_guard<std::mutex> guard(mutex_);
  const std::size_t kept = std::min(bytes.size(), limit_ - text_.size());
  for (const std::byte b : bytes.first(kept)) text_.push_back(std::to_integer<char>(b));
  dropped_ += bytes.size() - kept;
}

std::string CaptureSink::text() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return text_;
}

std::size_t CaptureSink::size() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return text_.size();
}

std::uint64_t CaptureSink::dropped() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return dropped_;
}

void CaptureSink::clear() {
  std::lock_guard<std::mutex> guard(mutex_);
  text_.clear();
  dropped_ = 0;
}

}  // namespace vmm

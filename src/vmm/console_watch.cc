#include "vmm/console_watch.h"

namespace vmm {
namespace {

// kernel/panic.c of Linux, unchanged since 1993 but for the words after the dash.
constexpr std::string_view kMarker = "Kernel panic - not syncing";

}  // namespace

void ConsoleWatch::write(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) {
    const char c = static_cast<char>(byte);
    if (c != kMarker[matched_]) matched_ = 0;
    // No proper suffix of a partial match is a prefix of the marker but the single 'K': one
    // comparison suffices.
    if (c == kMarker[matched_]) ++matched_;
    if (matched_ == kMarker.size()) {
      panicked_.store(true, std::memory_order_relaxed);
      matched_ = 0;
    }
  }
  const auto kept = bytes.last(std::min(bytes.size(), kTail));
  tail_.append(reinterpret_cast<const char*>(kept.data()), kept.size());
  if (tail_.size() > 2 * kTail) tail_.erase(0, tail_.size() - kTail);
  if (next_ != nullptr) next_->write(bytes);
  if (tap_ != nullptr) tap_->write(bytes);
}

}  // namespace vmm

#include "vmm/net/capture_backend.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace vmm {
namespace {

std::chrono::nanoseconds utc_now() { return std::chrono::system_clock::now().time_since_epoch(); }

}  // namespace

bool CaptureBackend::send(const NetHeader& header, std::span<const ::iovec> frame) {
  writer_->write(utc_now(), frame);  // before the answer to it
  return inner_->send(header, frame);
}

std::optional<std::size_t> CaptureBackend::receive(NetHeader& header,
                                                   std::span<const ::iovec> into) {
  const std::optional<std::size_t> size = inner_->receive(header, into);
  if (size) {
    std::vector<::iovec> frame;
    std::size_t left = *size;
    for (const ::iovec& piece : into) {
      frame.push_back({piece.iov_base, std::min(piece.iov_len, left)});
      left -= frame.back().iov_len;
      if (left == 0) break;
    }
    writer_->write(utc_now(), frame);
  }
  return size;
}

}  // namespace vmm
